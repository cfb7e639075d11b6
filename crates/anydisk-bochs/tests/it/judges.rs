//! qemu-img and bximage as judges.

use std::process::{Command, Stdio};

use anydisk_bochs::BOCHS;
use anydisk_core::Access;
use anydisk_testkit::golden::{OpenVerdict, cases};
use anydisk_testkit::oracle::{Qemu, is_installed};
use anydisk_testkit::{ImageFolder, contents};

#[test]
fn qemu_img_reads_the_same() {
    let Some(qemu) = Qemu::find() else { return };
    let mut tried = 0;
    for case in cases("bochs").iter().filter(|case| case.expect.open == OpenVerdict::Ok) {
        tried += 1;
        let folder = ImageFolder::new(&BOCHS);
        std::fs::copy(case.unpack().path, folder.path("disk.img")).expect("a file");
        let ours = contents(&folder.open("disk.img", Access::Read));
        std::fs::write(folder.path("ours.raw"), ours).expect("a file");
        qemu.assert_same((&folder.path("disk.img"), "bochs"), (&folder.path("ours.raw"), "raw"));
    }
    assert_eq!(tried, 4);
}

#[test]
fn disks_that_bximage_makes_are_read() {
    if !is_installed("bximage") {
        return;
    }
    for (megabytes, least) in [(10, 9 << 20), (700, 690 << 20), (3_000_000, 2_900_000 << 20)] {
        let folder = ImageFolder::new(&BOCHS);
        let made = Command::new("bximage")
            .args(["-q", "-func=create"])
            // The mode counts only behind the size.
            .args([format!("-hd={megabytes}M"), "-imgmode=growing".into()])
            .arg(folder.path("disk"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("it starts").success(), "{megabytes}");
        let disk = folder.open("disk", Access::Read);
        assert!((least..=megabytes << 20).contains(&disk.size()), "{megabytes}: {}", disk.size());
        let mut last = [7; 512];
        let at = disk.size() - 512;
        disk.read(anydisk_core::GuestOffset(at), &mut last).expect("it reads");
        assert_eq!(last, [0; 512]);
    }
}
