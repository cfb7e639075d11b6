//! What some formats can do and others cannot: each a trait, reached by an accessor that answers
//! `None`, or an operation of [`Format`](crate::Format) that refuses by name.

pub(crate) mod backing;
pub(crate) mod bitmap;
pub(crate) mod check;
pub(crate) mod compact;
pub(crate) mod reading;
pub(crate) mod resize;
pub(crate) mod snapshot;
