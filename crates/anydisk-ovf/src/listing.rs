//! What is told of a package's disks and files.

use anydisk_core::{Member, one_line};

use crate::descriptor::File;
use crate::{Package, PackageDisk};

impl Package {
    /// Its disks, then its other files.
    pub(crate) fn list(&self) -> Vec<Member> {
        let disks = self.disks().iter().map(|disk| self.disk_member(disk));
        let is_disk = |file: &&File| {
            self.disks().iter().any(|disk| disk.file.as_deref() == Some(file.href.as_str()))
        };
        let others = self.descriptor.files.iter().filter(|file| !is_disk(file));
        let others = others.map(|file| self.file_member(file, "package member (file)"));
        let all = disks.chain(others).map(|mut member| {
            member.note = member.note.map(|note| one_line(&note));
            member
        });
        all.collect()
    }

    fn disk_member(&self, disk: &PackageDisk) -> Member {
        let file = disk.file.as_ref().and_then(|href| self.file(href).ok());
        let mut notes = Vec::new();
        let mut member = match file {
            Some(file) => {
                notes.push(format!("capacity {} bytes", disk.capacity));
                self.file_member(file, "package member (disk)")
            }
            None => empty_member(disk),
        };
        if file.is_some() {
            member.format.clone_from(&disk.format);
        }
        if let Some(parent) = &disk.parent {
            notes.push(format!("changes disk {parent}"));
        }
        notes.extend(member.note);
        member.note = (!notes.is_empty()).then(|| notes.join("; "));
        member
    }

    fn file_member(&self, file: &File, kind: &'static str) -> Member {
        let mut member = Member::new(file.href.clone(), kind);
        let mut notes = Vec::new();
        match self.files.packed(file) {
            Ok(store) if !file.gzip => member.size = store.len().ok(),
            Ok(_) => notes.push("packed with gzip".to_owned()),
            Err(error) => notes.push(error.to_string()),
        }
        if self.is_left_out(file) {
            notes.push("the manifest does not have it".to_owned());
        }
        member.note = (!notes.is_empty()).then(|| notes.join("; "));
        member
    }
}

/// A disk without a file.
fn empty_member(disk: &PackageDisk) -> Member {
    let mut member = Member::new(disk.id.clone(), "package member (empty disk)");
    member.size = Some(disk.capacity);
    member.format = disk.is_empty().then(|| "raw".to_owned());
    member
}
