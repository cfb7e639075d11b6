//! `--untrusted`, on every command.

use crate::common::{Bench, said};

/// What a command does with an image that names a file which is not given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum With {
    /// It needs the file, so it refuses.
    Refused,
    /// It tells or changes what the image itself says, and never opens the file.
    Alone,
    /// There is no image.
    NoImage,
}

use With::{Alone, NoImage, Refused};

/// Each command with an image in place of `IMAGE`; `new` is a file that is not there. Some of them
/// change the image.
const LINES: &[(&str, With)] = &[
    ("create -q -f qcow2 -b IMAGE -F qcow2 new", Refused),
    ("convert -q -O raw IMAGE new", Refused),
    ("bitmap --add IMAGE monday", Alone),
    ("info IMAGE", Alone),
    ("info --backing-chain IMAGE", Refused),
    ("inspect --allow-references IMAGE", Alone),
    ("map IMAGE", Refused),
    ("map --picture IMAGE", Refused),
    ("amend -o lazy_refcounts=on IMAGE", Alone),
    ("check -q IMAGE", Alone),
    ("compact -q IMAGE", Alone),
    ("salvage -q IMAGE new", Refused),
    ("compare IMAGE IMAGE", Refused),
    ("dd if=IMAGE of=new", Refused),
    ("bench -c 1 IMAGE", Refused),
    ("serve -k socket IMAGE", Refused),
    ("measure -O raw IMAGE", Refused),
    ("resize -q IMAGE 2M", Refused),
    ("snapshot -l IMAGE", Alone),
    ("snapshot -c one IMAGE", Refused),
    ("snapshot --diff one IMAGE", Refused),
    ("commit -q IMAGE", Refused),
    ("rebase -u -b other -F raw IMAGE", Alone),
    ("rebase -b other -F raw IMAGE", Refused),
    ("members IMAGE", Refused),
    ("completions bash", NoImage),
    ("man .", NoImage),
];

/// A folder with an image that names a file of the host.
fn prepared() -> Bench {
    let bench = Bench::new();
    bench.raw("secret", 1 << 20, &[(0, b"secret")]);
    bench.raw("other", 1 << 20, &[]);
    bench.raw("plain", 1 << 20, &[(0, b"plain")]);
    bench.prints(&["create", "-q", "-f", "qcow2", "-b", "secret", "-F", "raw", "evil", "1M"]);
    bench
}

fn words<'a>(line: &'a str, image: &'a str) -> Vec<String> {
    line.split(' ').map(|word| word.replace("IMAGE", image)).collect()
}

#[test]
fn every_command_is_in_the_table() {
    let help = Bench::new().prints(&["--help"]);
    let commands = help.split("Commands:\n").nth(1).expect("a list");
    let commands = commands.lines().take_while(|line| !line.is_empty());
    for command in commands.filter_map(|line| line.split_whitespace().next()) {
        let is_there = LINES.iter().any(|(line, _)| line.split(' ').next() == Some(command));
        assert!(is_there, "{command}");
    }
}

#[test]
fn no_command_opens_a_file_that_an_untrusted_image_names_by_option_or_by_environment() {
    let known = Bench::new().prints(&["--help"]);
    for (line, with) in LINES {
        let command = line.split(' ').next().expect("a command");
        if *with == NoImage || !known.contains(&format!("\n  {command} ")) {
            continue;
        }
        for by_environment in [false, true] {
            let bench = prepared();
            // Who does not open it does not miss it.
            std::fs::remove_file(bench.path("secret")).expect("it was there");
            let mut run = bench.command(env!("CARGO_BIN_EXE_anydisk"));
            run.args(words(line, "evil"));
            match by_environment {
                true => run.env("ANYDISK_UNTRUSTED", "1"),
                false => run.arg("--untrusted"),
            };
            let output = run.output().expect("anydisk runs");
            let text = said(&output);
            match with {
                Alone => assert!(output.status.success(), "{line}: {text}"),
                _ => {
                    assert!(!output.status.success(), "{line}: {text}");
                    assert!(text.contains("\"secret\" is named by the image"), "{line}: {text}");
                }
            }
            // What a salvaged copy has no file for is zero there.
            let made = std::fs::read(bench.path("new")).unwrap_or_default();
            assert!(made.is_empty() || command == "salvage", "{line}");
            assert!(made.iter().all(|byte| *byte == 0), "{line}");
        }
    }
}

#[test]
fn no_command_takes_an_untrusted_file_for_raw_by_itself() {
    let known = Bench::new().prints(&["--help"]);
    for (line, with) in LINES {
        let command = line.split(' ').next().expect("a command");
        // The first names the format of the image, the last tells that nothing knows it.
        let skipped = ["create", "inspect"].contains(&command) || *with == NoImage;
        if skipped || !known.contains(&format!("\n  {command} ")) {
            continue;
        }
        let bench = prepared();
        let mut run = bench.command(env!("CARGO_BIN_EXE_anydisk"));
        let output = run.args(words(line, "plain")).arg("--untrusted").output().expect("it runs");
        let text = said(&output);
        assert!(!output.status.success(), "{line}: {text}");
        assert!(text.contains("no format recognises plain"), "{line}: {text}");
    }
}

#[test]
fn the_variable_can_say_no() {
    let bench = prepared();
    for no in ["0", "", "off", "no", "false"] {
        let mut run = bench.command(env!("CARGO_BIN_EXE_anydisk"));
        let output = run.args(["map", "evil"]).env("ANYDISK_UNTRUSTED", no).output().unwrap();
        assert!(output.status.success(), "{no:?}: {}", said(&output));
    }
}

/// A VMDK that stands for a device; here for a file in the place of one.
fn device(bench: &Bench, create_type: &str) -> String {
    bench.raw("sdx", 1 << 20, &[(70_000, b"device")]);
    let path = bench.path("sdx").into_os_string().into_string().expect("text");
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n\
         createType=\"{create_type}\"\nRW 2048 FLAT \"{path}\" 0\n"
    );
    std::fs::write(bench.path("disk.vmdk"), text).expect("a descriptor");
    path
}

#[test]
fn a_host_device_that_an_image_stands_for_is_opened_only_if_the_command_line_names_it() {
    let bench = Bench::new();
    let path = device(&bench, "fullDevice");
    let error = bench.fails(&["info", "disk.vmdk"], 1);
    assert!(error.contains("host device") && error.contains("--allow-device "), "{error}");
    bench.fails(&["info", "--allow-device", "/dev/other", "disk.vmdk"], 1);
    bench.fails(&["info", "--untrusted", "disk.vmdk"], 1);
    let allowed = ["--allow-device", "/dev/other", "--allow-device", &*path];
    for strict in [&[][..], &["--untrusted"]] {
        let line =
            [&["compare", "-f", "vmdk", "-F", "raw", "disk.vmdk", "sdx"], &allowed[..], strict];
        let told = bench.prints(&line.concat());
        assert!(told.contains("identical"), "{told}");
    }
    // Nothing else is opened with it.
    std::fs::rename(bench.path("sdx"), bench.path("sdy")).expect("a rename");
    let error = bench.fails(&[&["info", "disk.vmdk"], &allowed[..]].concat(), 1);
    assert!(error.contains("No such file"), "{error}");
}

#[test]
fn a_device_is_no_extent_of_an_image_of_another_kind_unless_the_command_line_names_it() {
    let bench = Bench::new();
    device(&bench, "custom");
    let Some(device) = anydisk_testkit::mounted::Loop::new(&bench.path("sdx")) else { return };
    let path = device.path().to_str().expect("text");
    let text = std::fs::read_to_string(bench.path("disk.vmdk")).expect("text");
    let of_file = bench.path("sdx").into_os_string().into_string().expect("text");
    std::fs::write(bench.path("disk.vmdk"), text.replace(&of_file, path)).expect("a descriptor");
    let line = ["compare", "-f", "vmdk", "-F", "raw", "disk.vmdk", "sdx"];
    let error = bench.fails(&line, 2);
    assert!(error.contains("is a block device"), "{error}");
    bench.prints(&[&line[..], &["--allow-device", path]].concat());
}
