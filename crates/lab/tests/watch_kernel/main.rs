//! `rstlab watch` beside real sockets. Needs root, a mounted tracefs, tcpdump, unshare and setpriv:
//! `cargo test -p rstlab-lab --features kernel --test watch_kernel`.

#![cfg(feature = "kernel")]

mod beside;
mod compare;
mod ends;
#[cfg(feature = "peers")]
mod peers;
mod says;
mod tcpdump;
