//! qemu-img's opinion of what a history left.

use std::fmt::Debug;
use std::path::Path;
use std::process::Command;

use anydisk_testkit::ByteModel;
use anydisk_testkit::oracle::Qemu;

use super::world::World;
use crate::common::save;

/// Fails if qemu-img finds damage or lost clusters, or reads something else. Says so where it is
/// not installed.
pub(super) fn judge(world: &World, when: &dyn Debug) {
    let Some(_) = Qemu::find() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    save(&*world.store, &path("image.qcow2"));
    save(&*world.data, &path("data"));
    if let Some(below) = &world.below {
        std::fs::write(path("below.raw"), below).expect("there is room");
    }
    let mut image = format!("driver=qcow2,file.filename={}", path("image.qcow2").display());
    if world.kind.has("data_file") {
        let data = path("data").display().to_string();
        image.push_str(&format!(",data-file.driver=file,data-file.filename={data}"));
    }
    if world.kind.has("encrypt.format") {
        image.push_str(",encrypt.key-secret=s");
    }
    qemu(&["check", "-q"], &image, None, when);
    let raw = path("raw");
    qemu(&["convert", "-O", "raw"], &image, Some(&raw), when);
    assert_holds(&raw, &world.model, when);
    // qemu-img shows a snapshot cut or filled up to the size of the disk.
    let of_this_size = world.kept.iter().filter(|(_, kept)| kept.size() == world.model.size());
    if let Some((id, kept)) = of_this_size.last() {
        let id = format!("snapshot.id={id}");
        qemu(&["convert", "-l", &id, "-O", "raw"], &image, Some(&raw), when);
        assert_holds(&raw, kept, when);
    }
}

/// Runs qemu-img on the image; its code must be 0: for a check no leaks and no damage.
fn qemu(arguments: &[&str], image: &str, target: Option<&Path>, when: &dyn Debug) {
    let mut command = Command::new("qemu-img");
    command.args(arguments).args(["--object", "secret,id=s,data=correct horse"]);
    command.args(["--image-opts", image]).args(target);
    let output = command.output().expect("it was found");
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    assert!(output.status.success(), "{when:?}: {arguments:?}: {told}");
}

fn assert_holds(raw: &Path, model: &ByteModel, when: &dyn Debug) {
    assert!(std::fs::read(raw).expect("written") == model.contents(), "{when:?}: read by qemu-img");
}
