//! `anydisk bitmap`.

use std::ffi::{OsStr, OsString};

use anydisk::storage::name;
use anydisk::{Bitmaps, GuestOffset, Image, ImageWrite, NewBitmap};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::args::{Reading, Telling, any_name};
use crate::failure::{Failure, Outcome, no_bitmaps};
use crate::options;
use crate::output::ranges::Ranges;

const EXAMPLES: &str = "\
Examples:
  anydisk bitmap --add disk.qcow2 monday
  anydisk bitmap --add -g 4k --disable disk.qcow2 fine
  anydisk bitmap --merge monday --merge tuesday disk.qcow2 week
  anydisk bitmap --changes --output=json disk.qcow2 monday
  anydisk info disk.qcow2                  (lists them)

What is asked for is done in the order of the command line.";

/// Adds, removes, changes and reads a dirty bitmap of an image.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Bitmap {
    #[command(flatten)]
    actions: Actions,
    /// Print the ranges that it has recorded
    #[arg(long, conflicts_with_all = ["add", "remove", "clear", "enable", "disable", "merge"])]
    changes: bool,
    /// With --add: bytes that one bit stands for
    #[arg(short, long)]
    granularity: Option<String>,
    /// With --merge: the image that has the other bitmap
    #[arg(short = 'b', long)]
    source_file: Option<OsString>,
    /// The format of that image
    #[arg(short = 'F', long)]
    source_format: Option<String>,
    /// The format of the image, instead of looking at its bytes
    #[arg(short, long)]
    format: Option<String>,
    /// The image, and the name of the bitmap
    #[arg(value_names = ["FILE", "BITMAP"])]
    names: Vec<OsString>,
    #[command(flatten)]
    telling: Telling,
    #[command(flatten)]
    reading: Reading,
}

/// What is done with the bitmap, in the order of the command line.
#[derive(Clone, Debug, Default)]
struct Actions(Vec<Action>);

/// A thing done with a bitmap.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Add,
    Remove,
    Clear,
    Enable,
    Disable,
    Merge(String),
}

/// Their options, with what is told of them.
const FLAGS: [(&str, &str, Action); 5] = [
    ("add", "Begin a bitmap", Action::Add),
    ("remove", "Forget the bitmap", Action::Remove),
    ("clear", "Forget what it has recorded", Action::Clear),
    ("enable", "Record writes from now on", Action::Enable),
    ("disable", "Record no more; with --add: not yet", Action::Disable),
];

const MERGE: &str = "merge";

impl Args for Actions {
    fn augment_args(command: Command) -> Command {
        let flag = |name, help| Arg::new(name).long(name).help(help).action(ArgAction::Append);
        let command = FLAGS.iter().fold(command, |command, (name, help, _)| {
            // A list of flags: the parser tells the place of each.
            command.arg(flag(*name, *help).num_args(0).default_missing_value("on"))
        });
        let merge = flag(MERGE, "Add what another bitmap has recorded").value_name("SOURCE");
        command.arg(merge.value_parser(any_name()))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Actions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut placed = Vec::new();
        for (name, _, action) in FLAGS {
            let places = matches.indices_of(name).into_iter().flatten();
            placed.extend(places.map(|place| (place, action.clone())));
        }
        let places = matches.indices_of(MERGE).into_iter().flatten();
        let names = matches.get_many::<String>(MERGE).into_iter().flatten();
        placed.extend(places.zip(names).map(|(place, name)| (place, Action::Merge(name.clone()))));
        placed.sort_by_key(|(place, _)| *place);
        Ok(Self(placed.into_iter().map(|(_, action)| action).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Bitmap {
    pub(crate) fn run(self) -> Outcome {
        self.check_combination()?;
        let [file, name] = &self.names[..] else {
            return Err(Failure::new("Expecting filename and bitmap name"));
        };
        if self.changes {
            return self.print_changes(file, &name::of(name));
        }
        self.change(file, &name::of(name))?;
        self.telling.tell(&self.reading, file, self.format.as_deref())
    }

    /// Options that go only with others.
    fn check_combination(&self) -> Result<(), Failure> {
        let has = |wanted: fn(&Action) -> bool| self.actions.0.iter().any(wanted);
        let (adds, merges) = (
            has(|action| *action == Action::Add),
            has(|action| matches!(action, Action::Merge(_))),
        );
        let why = match self {
            Self {
                changes: true,
                source_file: None,
                source_format: None,
                granularity: None,
                ..
            } => {
                return Ok(());
            }
            Self { changes: true, .. } => "--changes goes with none of -b, -F, and -g",
            _ if self.actions.0.is_empty() => {
                "Need at least one of --add, --remove, --clear, --enable, --disable, or --merge"
            }
            Self { source_format: Some(_), source_file: None, .. } => "-F only supported with -b",
            Self { source_file: Some(_), .. } if !merges => {
                "Merge bitmap source file only supported with --merge"
            }
            Self { granularity: Some(_), .. } if !adds => "granularity only supported with --add",
            _ => return Ok(()),
        };
        Err(Failure::new(why))
    }

    fn change(&self, file: &OsStr, name: &str) -> Result<(), Failure> {
        let layer = self.reading.top_to_write(file, self.format.as_deref(), false)?;
        let image = &*layer.image;
        self.actions.0.iter().try_for_each(|action| self.perform(action, name, image))?;
        image.writer().map_or(Ok(()), ImageWrite::flush)?;
        Ok(())
    }

    fn print_changes(&self, file: &OsStr, name: &str) -> Outcome {
        let layer = self.reading.top(file, self.format.as_deref())?;
        let bitmaps = bitmaps_of(&*layer.image)?;
        let mut changes = done("changes", name, bitmaps.changes(name))?;
        let mut ranges = Ranges::begin(self.telling.form())?;
        let mut from = GuestOffset(0);
        while let Some(range) = changes.next(from)? {
            from = range.end();
            ranges.row(range);
        }
        ranges.end("changed")?;
        Ok(0)
    }

    fn perform(&self, action: &Action, name: &str, image: &dyn Image) -> Result<(), Failure> {
        let bitmaps = bitmaps_of(image)?;
        match action {
            Action::Add => done("add", name, bitmaps.add(&self.new_bitmap(name)?)),
            Action::Remove => done("remove", name, bitmaps.remove(name)),
            Action::Clear => done("clear", name, bitmaps.clear(name)),
            Action::Enable => done("enable", name, bitmaps.set_enabled(name, true)),
            Action::Disable => done("disable", name, bitmaps.set_enabled(name, false)),
            Action::Merge(source) => self.merge(source, name, image),
        }
    }

    fn new_bitmap(&self, name: &str) -> Result<NewBitmap, Failure> {
        let granularity = self.granularity.as_deref();
        let bytes = |text| options::number_of_bytes(text, "granularity");
        // None is as good as the usual one.
        let granularity = granularity.map(bytes).transpose()?.filter(|bytes| *bytes > 0);
        Ok(NewBitmap { name: name.to_owned(), granularity, enabled: true })
    }

    /// Adds what another bitmap has recorded, of this image or of the other one.
    fn merge(&self, source: &str, name: &str, image: &dyn Image) -> Result<(), Failure> {
        let other = match &self.source_file {
            Some(file) => Some(self.reading.of_files().top(file, self.source_format.as_deref())?),
            None => None,
        };
        let (into, size) = (bitmaps_of(image)?, image.size());
        if !done("merge", name, into.list())?.iter().any(|bitmap| bitmap.name == name) {
            return Err(failed("merge", name, &format!("Dirty bitmap '{name}' not found")));
        }
        let from = match &other {
            Some(layer) => bitmaps_of(&*layer.image)?,
            None => into,
        };
        let mut changes = done("merge", name, from.changes(source))?;
        if changes.size() != size {
            let other = changes.size();
            return Err(failed(
                "merge",
                name,
                &format!(
                    "Bitmaps are of different sizes (destination size is {size}, source size is \
                 {other}) and can't be merged"
                ),
            ));
        }
        done("merge", name, into.merge(name, &mut *changes))
    }
}

fn bitmaps_of(image: &dyn Image) -> Result<&dyn Bitmaps, Failure> {
    let format = image.info().format;
    image.bitmaps().ok_or_else(|| no_bitmaps(format))
}

fn done<T>(what: &str, name: &str, result: Result<T, anydisk::Error>) -> Result<T, Failure> {
    result.map_err(|error| {
        let why = match error {
            anydisk::Error::NotFound { name, .. } => format!("Dirty bitmap '{name}' not found"),
            anydisk::Error::Exists { name, .. } => format!("Bitmap already exists: {name}"),
            anydisk::Error::Unusable { why, .. } => why.into_owned(),
            error => Failure::from(error).text,
        };
        failed(what, name, &why)
    })
}

fn failed(what: &str, name: &str, why: &str) -> Failure {
    Failure::new(format!("Operation {what} on bitmap {name} failed: {why}"))
}
