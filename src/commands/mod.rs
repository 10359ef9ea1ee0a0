//! A file per verb.

pub mod announce;
