//! Values that both settings and objects are made of.

pub mod mark;
