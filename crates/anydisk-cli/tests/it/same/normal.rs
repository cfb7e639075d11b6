//! What may differ from run to run is replaced: times, numbers drawn at random, how far a job was
//! when it was shown.

/// The text without what varies.
pub(super) fn output(text: &str, without_space: bool) -> String {
    let mut text = last_of_progress(text);
    for (before, what) in NUMBERS {
        text = replaced(&text, before, |byte| byte.is_ascii_digit() || byte == b'.', what);
    }
    if without_space {
        for before in SPACE {
            text = replaced(&text, before, |byte| !b",\n".contains(&byte), "SPACE");
        }
        text = replaced(&text, "% allocated, ", |byte| byte != b'%', "SPACE");
    }
    without_shapes(&text)
}

/// Numbers that vary, by what stands before them.
const NUMBERS: &[(&str, &str)] = &[
    ("\"date-sec\": ", "DATE"),
    ("\"date-nsec\": ", "DATE"),
    ("cid: ", "CID"),
    ("cid\": ", "CID"),
    ("iters: ", "ITERS"),
    ("iters\": ", "ITERS"),
    ("Run completed in ", "TIME"),
];

/// How much space there is, and how it is used, by what stands before it.
const SPACE: &[&str] = &[
    "disk size: ",
    "file length: ",
    "\"actual-size\": ",
    "                \"virtual-size\": ",
    "Image end offset: ",
    "\"image-end-offset\": ",
    "\"fragmented-clusters\": ",
];

/// Replaces what follows `before`, as long as it `goes_on`.
fn replaced(text: &str, before: &str, goes_on: fn(u8) -> bool, with: &str) -> String {
    let mut parts = text.split(before);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.bytes().position(|byte| !goes_on(byte)).unwrap_or(part.len());
        let with = if end == 0 { "" } else { with };
        out += &format!("{before}{with}{}", &part[end..]);
    }
    out
}

/// Of the progress that was shown, only the end.
fn last_of_progress(text: &str) -> String {
    // Who compares on all cores may have looked at everything when a difference is told.
    let is_partial = text.contains("Content mismatch");
    let mut out = String::new();
    let mut shown = "";
    for piece in text.split_inclusive('\r') {
        let at = piece.rfind("    (").filter(|_| piece.ends_with("/100%)\r"));
        let (before, progress) = piece.split_at(at.unwrap_or(piece.len()));
        if !before.is_empty() {
            out += std::mem::take(&mut shown);
            out += before;
        }
        match progress {
            "" => {}
            _ if progress.contains("(100.00/") && !is_partial => shown = progress,
            _ => shown = "    (PART/100%)\r",
        }
    }
    out + shown
}

/// Dates and UUIDs, by their shape: `9` is a digit, `h` a hexadecimal one.
const SHAPES: &[(&str, &str)] =
    &[("9999-99-99 99:99:99", "DATE"), ("hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh", "UUID")];

fn without_shapes(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let found = SHAPES.iter().find(|(shape, _)| has_shape(rest, shape));
        match found {
            Some((shape, name)) => {
                out += name;
                rest = &rest[shape.len()..];
            }
            None => {
                out.push(char);
                rest = &rest[char.len_utf8()..];
            }
        }
    }
    out
}

fn has_shape(text: &str, shape: &str) -> bool {
    text.len() >= shape.len()
        && shape.bytes().zip(text.bytes()).all(|(shape, byte)| match shape {
            b'9' => byte.is_ascii_digit(),
            b'h' => byte.is_ascii_hexdigit(),
            other => other == byte,
        })
}

/// The lines of an error, without warnings that raw was guessed, in either program's words.
pub(super) fn complaint(text: &str) -> Vec<String> {
    let guessed = |line: &&str| {
        line.contains("so it is taken for raw; say so with -f raw")
            || line.starts_with("WARNING: Image format was not specified for")
            || line.starts_with("         Automatically detecting the format is dangerous")
            || line.starts_with("         Specify the 'raw' format explicitly")
    };
    text.lines().filter(|line| !guessed(line)).map(str::to_owned).collect()
}

#[test]
fn only_what_varies_is_replaced() {
    let text =
        "1 2026-11-26 01:02:03 x\n    (0.00/100%)\r    (50.00/100%)\r    (100.00/100%)\r\nend";
    assert_eq!(output(text, false), "1 DATE x\n    (100.00/100%)\r\nend");
    assert_eq!(output("\"cid\": 12, \"id\": 12", false), "\"cid\": CID, \"id\": 12");
    assert_eq!(output("disk size: 1 KiB\n", false), "disk size: 1 KiB\n");
    assert_eq!(output("disk size: 1 KiB\n", true), "disk size: SPACE\n");
    let text = "2/4 = 50.00% allocated, 1.00% fragmented, 0.00% compressed clusters\n";
    let expected = "2/4 = 50.00% allocated, SPACE% fragmented, 0.00% compressed clusters\n";
    assert_eq!(output(text, true), expected);
}
