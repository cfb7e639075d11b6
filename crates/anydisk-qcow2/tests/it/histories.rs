//! Long random histories of everything that can be done to an image, against byte vectors: one for
//! the disk, one for each snapshot, and for each bitmap what it must and what it may have recorded.
//!
//! `ANYDISK_HISTORIES` is the number of histories for each kind of image.

mod judge;
mod kinds;
mod record;
mod world;

use kinds::KINDS;
use world::World;

/// Histories of each kind, if nothing is said.
const USUAL: u64 = 2;
const STEPS: u64 = 300;

fn histories() -> u64 {
    let text = std::env::var("ANYDISK_HISTORIES").ok();
    text.map_or(USUAL, |text| text.parse().expect("ANYDISK_HISTORIES is a number"))
}

fn play(name: &str) {
    let kind = KINDS.iter().find(|kind| kind.name == name).expect("a kind of this name");
    for seed in 0..histories() {
        let mut world = World::new(kind, seed);
        for number in 0..STEPS {
            let what = world.step();
            if number % 16 == 0 {
                world.assert_holds(&(name, seed, number, what));
            }
        }
        let end = (name, seed, "at the end");
        world.reopen();
        world.assert_holds(&end);
        judge::judge(&world, &end);
    }
}

macro_rules! histories {
    ($($test:ident: $kind:literal,)*) => { $(
        #[test]
        fn $test() {
            play($kind);
        }
    )* };
}

histories! {
    a_long_history_of_an_image_with_clusters_of_64_kib_equals_byte_vectors: "64 KiB",
    a_long_history_of_an_image_with_clusters_of_512_bytes_equals_byte_vectors: "512 bytes",
    a_long_history_of_an_image_with_subclusters_equals_byte_vectors: "subclusters",
    a_long_history_of_an_image_of_version_2_equals_byte_vectors: "version 2",
    a_long_history_of_an_image_with_lazy_refcounts_equals_byte_vectors: "lazy refcounts",
    a_long_history_of_an_image_with_refcounts_of_1_bit_equals_byte_vectors: "refcounts of 1 bit",
    a_long_history_of_an_image_encrypted_with_luks_equals_byte_vectors: "LUKS",
    a_long_history_of_an_image_encrypted_with_aes_equals_byte_vectors: "AES",
    a_long_history_of_an_image_with_a_data_file_equals_byte_vectors: "data file",
    a_long_history_of_an_image_with_a_raw_data_file_equals_byte_vectors: "raw data file",
    a_long_history_of_an_encrypted_data_file_equals_byte_vectors: "encrypted data file",
    a_long_history_of_an_overlay_equals_byte_vectors: "overlay",
    a_long_history_of_an_overlay_with_subclusters_equals_byte_vectors: "overlay, subclusters",
    a_long_history_of_an_overlay_of_version_2_equals_byte_vectors: "overlay, version 2",
}
