//! Parts of what disks hold: members of packages, partitions, volumes.

use std::ffi::{OsStr, OsString};

use anydisk::inspect::{Inspection, Rules};
use anydisk::{
    Checked, Checking, Disk, Error, Finding, Inside, Located, Location, MemberFinding, OpenDisk,
};

use super::{check_format, tell_if_guessed};
use crate::args::{Part, Reading};
use crate::failure::Failure;
use crate::{naming, output};

impl Reading {
    /// Opens the disks of one machine, to see what lies in them.
    pub(crate) fn inside(
        &self,
        paths: &[OsString],
        format: Option<&str>,
        direct: bool,
    ) -> Result<Inside, Failure> {
        // A stranger's disk is not looked into further than was asked for.
        self.inside_to(paths, format, None, !self.untrusted, direct)
    }

    fn inside_to(
        &self,
        paths: &[OsString],
        format: Option<&str>,
        member: Option<&str>,
        deep: bool,
        direct: bool,
    ) -> Result<Inside, Failure> {
        if self.naming.image_opts {
            return Err(Failure::new("--image-opts cannot be used to look inside disks"));
        }
        let paths: Vec<OsString> =
            paths.iter().map(|path| naming::without_protocol(path)).collect();
        let Some(first) = paths.first() else {
            return Err(Failure::new("Expecting one image file name"));
        };
        let mut options = self.options().direct(direct);
        if let Some(format) = format {
            check_format(first, format)?;
            options = options.format(format);
        }
        let inside = match member {
            Some(member) => options.inside_for(&paths, member, deep),
            None => options.inside(&paths, deep),
        };
        let inside = inside.map_err(|error| self.failure(first, error))?;
        for disk in inside.disks() {
            tell_if_guessed(&disk.layers()[0]);
            self.say_warnings(disk);
        }
        Ok(inside)
    }

    /// Opens the disk that is the only file, or a part of what the files hold.
    pub(crate) fn part(
        &self,
        part: &Part,
        files: &[OsString],
        format: Option<&str>,
        direct: bool,
    ) -> Result<Disk, Failure> {
        Ok(self.part_with_findings(part, files, format, direct)?.0)
    }

    /// The same, and what should be known of the package that it lies in.
    pub(crate) fn part_with_findings(
        &self,
        part: &Part,
        files: &[OsString],
        format: Option<&str>,
        direct: bool,
    ) -> Result<(Disk, Vec<MemberFinding>), Failure> {
        match (&part.member, files) {
            (None, [file]) => Ok((self.disk(file, format, direct)?, Vec::new())),
            (None, _) => {
                let failure = Failure::new("Expecting one image file name");
                Err(failure.with_advice(&output::where_help_is()))
            }
            (Some(member), files) => {
                let deep = !self.untrusted;
                let inside = self.inside_to(files, format, Some(member), deep, direct)?;
                let disk = inside.disk(member, part.member_format.as_deref());
                let disk = disk.map_err(|error| about_member(part, error))?;
                self.say_warnings(&disk);
                Ok((disk, inside.findings_about(member).into_iter().cloned().collect()))
            }
        }
    }

    /// Inspects the only file, or a part of what the files hold. No file that one of them names is
    /// opened; a part is looked for as deep as it takes, unless the files are said to be untrusted.
    pub(crate) fn inspect(
        &self,
        part: &Part,
        files: &[OsString],
        format: Option<&str>,
        rules: &Rules,
    ) -> Result<Inspection, Failure> {
        let stranger = Self { untrusted: true, ..self.clone() };
        match (&part.member, files) {
            (None, [file]) => {
                let opening = stranger.opening(file, format)?;
                let file = opening.file(&stranger.options())?;
                let options = opening.of_format(stranger.options());
                options.inspect_located(&file, rules).map_err(|error| opening.failure(error))
            }
            (None, _) => Err(Failure::new("Expecting one image file name")),
            (Some(member), files) => {
                let (file, inside) = stranger.member(part, files, format, !self.untrusted)?;
                let options = stranger.of_member(part)?;
                let inspected = options.inspect_located(&file, rules);
                let inspected = inspected.map_err(|error| about_member(part, error))?;
                Ok(inspected.in_package(inside.findings_about(member)))
            }
        }
    }

    /// Checks a part of what the files hold.
    pub(crate) fn check_member(
        &self,
        part: &Part,
        files: &[OsString],
        format: Option<&str>,
        how: &Checking<'_>,
        found: &mut dyn FnMut(Finding),
    ) -> Result<Checked, Failure> {
        let (file, _) = self.member(part, files, format, !self.untrusted)?;
        let options = self.of_member(part)?;
        self.warn_of(&options.clone().without_data(true), &file);
        let checked = options.check_located(file, how, found);
        let name = OsStr::new(part.member.as_deref().unwrap_or_default());
        checked.map_err(|error| Failure::from_check(error).about(name))
    }

    /// The bytes of a part of what the files hold, and what they hold.
    fn member(
        &self,
        part: &Part,
        files: &[OsString],
        format: Option<&str>,
        deep: bool,
    ) -> Result<(Located, Inside), Failure> {
        let member = part.member.as_deref().unwrap_or_default();
        let inside = self.inside_to(files, format, Some(member), deep, false)?;
        let store = anydisk::Members::open(&inside, member);
        let store = store.map_err(|error| about_member(part, error))?;
        Ok((Located { store, location: Location::Other(member.to_owned()) }, inside))
    }

    /// Reads a part as what it is said to be.
    fn of_member(&self, part: &Part) -> Result<OpenDisk, Failure> {
        let Some(format) = &part.member_format else { return Ok(self.options()) };
        check_format(OsStr::new(part.member.as_deref().unwrap_or_default()), format)?;
        Ok(self.options().format(format))
    }
}

fn about_member(part: &Part, error: Error) -> Failure {
    Failure::from(error).about(OsStr::new(part.member.as_deref().unwrap_or_default()))
}
