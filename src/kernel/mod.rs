//! The only folder that knows sockets and bytes.
