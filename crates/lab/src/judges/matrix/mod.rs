//! `rstlab matrix`: starts each server and proxy of a list, checks it, stops it, and puts all of them into one table.
//!
//! `list` reads the list, `place` fills in the placeholders, `listener` makes sure that it is the program that answers,
//! `report` holds the results, and `cells` is shared by the terminal, Markdown and HTML. `shared::program` starts, watches
//! and stops the programs.

mod args;
mod cells;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod html;
mod list;
mod listener;
mod markdown;
mod place;
mod placeholders;
mod report;
mod run;
mod text;

pub use args::{MatrixArgs, execute};
pub use list::{BadList, EntryKind, MatrixCheck, MatrixEntry, MatrixList};
pub use report::{Matrix, ProxyRow, ServerRow};
pub use run::run;
