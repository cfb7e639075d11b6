//! Golden images: small images of every format with the verdict, the content and the map expected.

mod case;
mod check;
mod judge;
mod map;
mod memory;

pub use case::{Case, CaseFile, Expect, Kind, Mapped, OpenVerdict, ReadVerdict, cases};
pub use check::judge_checks;
pub use judge::{NotYet, judge, judge_all};
#[doc(hidden)]
pub use memory::judge_memory;

/// A test of all golden images of a format: `golden_suite!(registry(), "qcow2", [("aes-v2",
/// "encryption is not read"), ...])`.
///
/// `registry()` is an expression that makes a `Registry` with the format, and with raw where images
/// lie on raw ones. The list names the cases that are not yet supported, each with its reason; a
/// case of the list that passes is a failure, so that the list stays true. Where the format has a
/// check, all cases are checked too; `golden_suite!(registry(), "qcow2", [...], checks: [...])` names
/// those whose check is not yet what it should be.
#[macro_export]
macro_rules! golden_suite {
    ($registry:expr, $format:literal, $not_yet:tt) => {
        $crate::golden_suite!($registry, $format, $not_yet, checks: []);
    };
    (
        $registry:expr, $format:literal, [$(($name:literal, $reason:literal)),* $(,)?],
        checks: [$(($checked:literal, $why:literal)),* $(,)?]
    ) => {
        #[test]
        fn every_golden_image_is_checked_with_the_expected_verdict() {
            $crate::golden::judge_checks($format, &$registry, &[$(($checked, $why)),*]);
        }

        #[test]
        fn every_golden_image_gives_the_expected_verdict_content_and_map() {
            $crate::golden::judge_all($format, &$registry, &[$(($name, $reason)),*]);
        }

        #[test]
        fn no_golden_image_makes_the_process_take_64_mebibytes() {
            let test = concat!(
                module_path!(),
                "::no_golden_image_makes_the_process_take_64_mebibytes"
            );
            $crate::golden::judge_memory(test, $format, &$registry);
        }
    };
}
