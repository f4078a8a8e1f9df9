//! Tables of messages: the bytes that the proxy gets, its answer, and the bytes that it passes on.

mod notation;
mod one_reading;
mod requests;
mod responses;
