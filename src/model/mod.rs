//! Values that several parts of the program share.

pub mod link_id;
pub mod mark;
