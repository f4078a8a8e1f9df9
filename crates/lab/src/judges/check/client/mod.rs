//! A client whose every system call is chosen: it plays a script on one connection and says how the trial ended.

mod judge;
mod read;
mod steps;
mod watch;

pub(super) use steps::{Client, MAX_BYTES, Manner, READ_DELAY, RECEIVE_BUFFER, Unusable};
