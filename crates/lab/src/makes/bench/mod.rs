//! `rstlab bench`: rstlab-proxy beside nginx and HAProxy, in front of the same upstream and under the same load.
//!
//! `cases` is the table of loads, `proxies` the table of proxies, `upstream` answers, `turn` starts one proxy, loads,
//! measures and stops it, `cost` reads what the proxy's processes cost, `run` takes the turns, and `report` holds their
//! medians for `text` and `markdown`.

mod args;
mod cases;
mod cells;
mod cost;
mod execute;
mod markdown;
mod proxies;
mod report;
mod run;
mod text;
mod turn;
mod upstream;

pub use args::{BenchArgs, BenchConfig};
pub use execute::execute;
pub use report::{BenchFigures, BenchReport, BenchRow, BenchedCase, BenchedProxy, Spread};
