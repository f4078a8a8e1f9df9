//! Commands that judge a server or a proxy: do its clients lose responses?

pub mod check;
pub mod matrix;
