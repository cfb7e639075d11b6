//! The tests of the crate, in one program: that links once.

mod backup;
mod bundles;
mod cut_off;
mod inspect;
mod json_names;
mod packages;
mod unnamed_backing;
mod vdi_parents;
mod volumes;
