//! rstlab, the laboratory for the occasional `ECONNRESET`: one module for each subcommand.
//!
//! [`demo`] is the main job: every mode of the upstream behind the proxy, loaded and counted.
//! [`server`] and [`client`] are the two programs of the article that describes the bug, [`load`] is a load
//! generator that says of each response whether it came whole, and if not, what the kernel said. [`watch`] stands
//! beside any server and explains its resets.

mod both;
mod calls;
pub mod client;
pub mod demo;
pub mod load;
mod printable;
pub mod server;
mod trace;
pub mod watch;
mod wrapped;
