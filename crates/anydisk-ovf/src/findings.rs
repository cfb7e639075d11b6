//! What should be known of a package before its disks are believed.

use crate::Package;
use crate::descriptor::File;

/// Something that nothing vouches for, or that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PackageFinding {
    /// Its kind, for programs: `no-manifest`, `certificate-not-verified`, `not-in-manifest`,
    /// `unreadable`.
    pub kind: &'static str,
    /// The member that it is about; `None`: the package.
    pub member: Option<String>,
    /// For people. Names that the package gives stand in it as they are.
    pub text: String,
}

impl Package {
    /// What should be known before its disks are believed; of the package, then of its files in the
    /// order of the descriptor. Digests are not looked at.
    #[must_use]
    pub fn findings(&self) -> Vec<PackageFinding> {
        let of_package = |kind, text| PackageFinding { kind, member: None, text };
        let manifest = (!self.has_manifest())
            .then(|| of_package("no-manifest", "no manifest: nothing is verified".into()));
        let certificate = self
            .certificate()
            .map(|name| of_package("certificate-not-verified", format!("{name} is not verified")));
        let files = self.descriptor.files.iter().flat_map(|file| self.findings_of(file));
        certificate.into_iter().chain(manifest).chain(files).collect()
    }

    fn findings_of(&self, file: &File) -> impl Iterator<Item = PackageFinding> {
        let member = Some(file.href.clone());
        let left_out = self.is_left_out(file).then(|| PackageFinding {
            kind: "not-in-manifest",
            member: member.clone(),
            text: "the manifest does not have it".into(),
        });
        let unreadable = self.files.packed(file).err().map(|error| PackageFinding {
            kind: "unreadable",
            member,
            text: error.to_string(),
        });
        left_out.into_iter().chain(unreadable)
    }

    /// Whether there is a manifest, and it says nothing of a file. Of one in chunks it may have the
    /// digests of the chunks.
    pub(crate) fn is_left_out(&self, file: &File) -> bool {
        let manifest = self.manifest.as_ref();
        let has = manifest.is_none_or(|manifest| manifest.digests.contains_key(&file.href));
        !has && file.chunk.is_none()
    }
}
