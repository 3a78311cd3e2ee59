//! What a reading, window, trip, score, anomaly and policy *is*: types, decoding, Arrow and JSON forms.
//! Depends on no other crate of the workspace, on no dataflow and on no broker.

pub mod arrow;
pub mod bytes;
pub mod catalogue;
pub mod control;
pub mod decode;
pub mod document;
pub mod fixed;
pub mod json;
pub mod key;
pub mod mapping;
pub mod policy;
pub mod prefetch;
pub mod reading;
pub mod records;
pub mod row;
mod scan;
pub mod table;
pub mod time;
pub mod unit;
pub mod varint;
