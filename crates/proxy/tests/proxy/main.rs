//! The proxy in process, between real sockets.

#![allow(clippy::unwrap_used)]

mod bad_input;
mod cut;
mod early_answer;
mod forwarding;
mod keepalive;
mod leaving;
mod log;
mod messages;
mod shutdown;
mod splice;
mod support;
mod workers;
