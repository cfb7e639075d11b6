//! What `-o help` prints: as qemu-img does for the options that it has too, ours behind them.

use anydisk::{Format, OptionKind, OptionSpec};

/// qemu-img's words: `FORMAT NAME KIND TEXT`. The format `file` has what any new file takes.
const WORDS: &str = include_str!("option_words.txt");

/// Options of every new file, whatever its format. To qemu they are hints for some file systems.
pub(crate) const HINTS: [(&str, OptionKind); 3] = [
    ("nocow", OptionKind::Flag),
    ("preallocation", OptionKind::Word(&["off", "falloc", "full"])),
    ("extent_size_hint", OptionKind::Size),
];

/// The place among the hints of an option that the format does not have itself.
pub(crate) fn hint_of(format: &dyn Format, name: &str) -> Option<usize> {
    let is_own = format.create_options().iter().any(|spec| spec.name == name);
    HINTS.iter().position(|(hint, _)| *hint == name).filter(|_| !is_own)
}

/// Options for making an image; `named`: its file is named as well.
pub(crate) fn creation(format: &dyn Format, named: bool) -> String {
    let name = format.name();
    let head = if named { String::new() } else { format!("{name} ") };
    let places = [Some(name), named.then_some("file")];
    let specs = format.create_options();
    let mut help = Help::default();
    help.add("size", OptionKind::Size, "Virtual disk size", &places);
    specs.iter().for_each(|spec| help.add(spec.name, spec.kind, spec.help, &places));
    if named {
        let hints = HINTS.iter().filter(|(name, _)| hint_of(format, name).is_some());
        hints.for_each(|(name, kind)| help.add(name, *kind, "", &places));
    }
    // Without the name of a file qemu-img leaves out what is a matter of files.
    help.own.retain(|line| named || !line.is_of_files());
    let more = match named {
        true => "",
        false => {
            "\nThe protocol level may support further options.\n\
             Specify the target filename to include those options.\n"
        }
    };
    format!("Supported {head}options:\n{}{more}{}", help.both(), help.own())
}

/// Options that can be changed later.
pub(crate) fn amending(format: &dyn Format) -> String {
    let (name, specs) = (format.name(), format.amend_options());
    let place = format!("amend-{name}");
    let mut help = Help::default();
    let mut add = |spec: &OptionSpec| help.add(spec.name, spec.kind, spec.help, &[Some(&place)]);
    specs.iter().for_each(&mut add);
    format!("Amend options for '{name}':\n{}{}", help.both(), help.own())
}

/// Lines of help.
#[derive(Default)]
struct Help {
    /// About options that qemu-img has too.
    both: Vec<Line>,
    own: Vec<Line>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    name: String,
    kind: &'static str,
    text: String,
}

impl Line {
    /// Whether qemu-img has it as an option of files, not of the format.
    fn is_of_files(&self) -> bool {
        words("file", &self.name).is_some()
    }

    fn text(&self) -> String {
        let Self { name, kind, text } = self;
        format!("  {:<22} - {text}\n", format!("{name}=<{kind}>"))
    }
}

impl Help {
    fn add(&mut self, name: &str, kind: OptionKind, text: &str, places: &[Option<&str>]) {
        let line = |kind, text: &str| Line { name: name.into(), kind, text: text.into() };
        match places.iter().flatten().find_map(|place| words(place, name)) {
            Some((theirs, text)) => {
                self.both.push(line(theirs, text));
                if let Some(more) = more_words(kind, text) {
                    self.own.push(line(theirs, &format!("also {more}")));
                }
            }
            None => self.own.push(line(word(kind), text)),
        }
    }

    fn both(&mut self) -> String {
        lines(&mut self.both)
    }

    fn own(&mut self) -> String {
        let lines = lines(&mut self.own);
        if lines.is_empty() { lines } else { format!("\nFurther options:\n{lines}") }
    }
}

fn lines(lines: &mut Vec<Line>) -> String {
    lines.sort();
    lines.dedup_by(|one, other| one.name == other.name);
    lines.iter().map(Line::text).collect()
}

/// Whether qemu-img has an option of this format as one of files.
pub(crate) fn is_of_files(format: &str, option: &str) -> bool {
    words(format, option).is_none() && words("file", option).is_some()
}

/// What qemu-img says that an option takes, and is.
fn words(place: &str, name: &str) -> Option<(&'static str, &'static str)> {
    let rest = |line: &'static str| {
        line.strip_prefix(place)?.strip_prefix(' ')?.strip_prefix(name)?.strip_prefix(' ')
    };
    let (kind, text) = WORDS.lines().find_map(rest)?.split_once(' ')?;
    let kind = if kind == "bool" { "bool (on/off)" } else { kind };
    Some((kind, text))
}

/// The words that an option takes and qemu-img, which lists some, does not.
fn more_words(kind: OptionKind, text: &str) -> Option<String> {
    let OptionKind::Word(all) = kind else { return None };
    let is_between = |c: char| !c.is_alphanumeric() && c != '.';
    let told = |word: &str| text.split(is_between).any(|other| other == word);
    let more: Vec<&str> = all.iter().copied().filter(|word| !told(word)).collect();
    (!more.is_empty() && more.len() < all.len()).then(|| more.join(", "))
}

fn word(kind: OptionKind) -> &'static str {
    match kind {
        OptionKind::Flag => "bool (on/off)",
        OptionKind::Number => "num",
        OptionKind::Size => "size",
        _ => "str",
    }
}
