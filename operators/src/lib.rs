//! What is computed. Pure kernels (`(&Config, &mut State, Input) -> Output`, no dataflow, no broker, no clock), each
//! beside a slow reference; and [`flow`], the thin timely and differential wrappers that run them.

pub mod facts;
