//! The demonstration: guests, a node and a router in namespaces of their own.

pub mod guest;
