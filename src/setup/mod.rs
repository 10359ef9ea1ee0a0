//! What each network tag asks for, as parts of a plan.

pub mod base;
