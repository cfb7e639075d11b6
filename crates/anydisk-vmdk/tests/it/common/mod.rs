//! What several tests use.

/// Gives the same file for every name.
#[derive(Debug)]
pub(crate) struct OneFile(pub(crate) std::sync::Arc<anydisk_storage::MemoryStorage>);

impl anydisk_core::Resolver for OneFile {
    fn resolve(
        &self,
        _: &anydisk_core::Reference,
        from: &anydisk_core::Location,
        _: anydisk_core::Access,
    ) -> anydisk_core::Result<anydisk_core::Located> {
        Ok(anydisk_core::Located { store: self.0.clone(), location: from.clone() })
    }
}
