//! rstlab, the laboratory for the occasional `ECONNRESET`: one module for each subcommand.
//!
//! [`demo`] is the main job: every mode of the upstream behind the proxy, loaded and counted.
//! [`server`] and [`client`] are the two programs of the article that describes the bug, [`load`] is a load
//! generator that says of each response whether it came whole, and if not, what the kernel said. [`check`] says of
//! any server whether its clients lose responses, [`matrix`] says it of a list of them. [`watch`] stands beside any
//! server and explains its resets. [`trace`] sends one request and shows what happened to it, [`show`] prints stored
//! records, both as [`timeline`] draws them.

mod both;
mod calls;
mod captured;
pub mod check;
pub mod client;
pub mod demo;
pub mod load;
mod markdown;
pub mod matrix;
mod output;
mod printable;
pub mod server;
pub mod show;
mod strace;
pub mod timeline;
pub mod trace;
pub mod watch;
mod wrapped;
