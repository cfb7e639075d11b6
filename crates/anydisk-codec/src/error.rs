//! What can go wrong in packing and unpacking.

use std::borrow::Cow;

/// Why a unit was not decoded. Whatever was written to the output by then is meaningless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes break the rules of the codec.
    #[error("{codec}: invalid data after {came} of {expected} bytes: {reason}")]
    Invalid {
        /// Name of the codec.
        codec: &'static str,
        /// Bytes decoded before the fault, where the codec tells.
        came: usize,
        /// Bytes the unit should have.
        expected: usize,
        /// What the codec says about it.
        reason: Cow<'static, str>,
    },
    /// The stream, or what is there of it, holds too few bytes.
    #[error("{codec}: the stream ends after {came} bytes, expected {expected}")]
    Short {
        /// Name of the codec.
        codec: &'static str,
        /// Bytes decoded.
        came: usize,
        /// Bytes the unit should have.
        expected: usize,
    },
    /// The stream holds more bytes than the unit, and this codec's users never write that.
    #[error("{codec}: the stream holds more than the {expected} bytes expected")]
    Long {
        /// Name of the codec.
        codec: &'static str,
        /// Bytes the unit should have.
        expected: usize,
    },
}

/// Why an encoder was not made, or a unit not packed.
///
/// A unit that does not shrink is not an error, see [`Encode::encode`](crate::Encode::encode).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A parameter is outside what the codec has.
    #[error("{codec}: {parameter} is {found}, expected {expected}")]
    Parameter {
        /// Name of the codec.
        codec: &'static str,
        /// Name of the parameter.
        parameter: &'static str,
        /// The value asked for.
        found: i64,
        /// The values there are.
        expected: &'static str,
    },
    /// The codec itself refused: for those of this crate, out of memory.
    #[error("{codec}: a unit of {len} bytes was not packed: {reason}")]
    Failed {
        /// Name of the codec.
        codec: &'static str,
        /// Bytes of the unit.
        len: usize,
        /// What the codec says about it.
        reason: Cow<'static, str>,
    },
}
