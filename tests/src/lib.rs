//! The laboratory that the promises are proven in.
