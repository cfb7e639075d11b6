//! The paths of members: one for each, whatever files, packages and volume groups are called.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anydisk_core::Member;
use anydisk_ovf::{Package, PackageFinding};

use super::{Entry, Found, Inside, MemberFinding, Open, add_note};

/// In front of the path of a volume group, and of what is in it, whose name something else has.
const GROUPS: &str = "lvm2/";

impl Inside {
    /// Gives all that was found its paths, and lists it. `paths`: by which the files were given.
    pub(super) fn name_all(&mut self, paths: &[impl AsRef<Path>]) {
        let files = file_names(paths);
        let shared = shared_names(&self.found, &files);
        let mut used = HashMap::new();
        // What lies in something comes behind it.
        let mut names: Vec<Vec<String>> = Vec::new();
        for (number, found) in self.found.iter().enumerate() {
            let above = found.under.map(|spot| names[spot.found][spot.member].clone());
            let is_shared = |path: &str| shared.contains(first_part(path));
            let shares = found.inner().any(is_shared);
            let name = |path: &str| match (&found.open, &above) {
                (Open::Disk(_), _) => files[number].clone(),
                (Open::Package(_), _) if shares => format!("{}/{path}", files[number]),
                (Open::Partitions(_), Some(above)) => format!("{above}/{path}"),
                (Open::Groups(_), _) if is_shared(path) => format!("{GROUPS}{path}"),
                _ => path.to_owned(),
            };
            let own = matches!(found.open, Open::Package(_)).then(|| files[number].clone());
            let all = own.into_iter().chain(found.inner().map(name));
            names.push(all.map(|name| unused(&mut used, name)).collect());
        }
        self.list(&names);
    }

    /// Lists all that was found under these names, each behind what it lies in.
    fn list(&mut self, names: &[Vec<String>]) {
        for (number, found) in self.found.iter_mut().enumerate() {
            let is_package = matches!(found.open, Open::Package(_));
            let above = found.under.map(|spot| &names[spot.found][spot.member]);
            if let Open::Package(package) = &found.open {
                self.findings.extend(findings(package, &found.members, &names[number]));
            }
            let mut by_path = HashMap::new();
            for (member, name) in found.members.iter().zip(&names[number]) {
                by_path.entry(member.path.clone()).or_insert(name);
            }
            for (index, mut member) in std::mem::take(&mut found.members).into_iter().enumerate() {
                let name = &names[number][index];
                let places = found.places_of(&member.path);
                if !places.is_empty() {
                    let places: Vec<_> =
                        places.iter().map(|at| names[at.found][at.member].as_str()).collect();
                    add_note(&mut member, &format!("in {}", places.join(", ")));
                }
                let path = std::mem::replace(&mut member.path, name.clone());
                // What belongs to nothing in there belongs to what that lies in.
                let parent = member.parent.and_then(|parent| by_path.get(&parent).copied());
                let package = names[number].first().filter(|_| is_package && index > 0);
                member.parent = parent.or(package).or(above).cloned();
                if !is_package || index > 0 {
                    self.entries.insert(name.clone(), Entry { found: number, path });
                }
                self.members.push(member);
            }
        }
    }
}

/// What is found in a package, under the names by which it and its members are listed.
fn findings(package: &Package, members: &[Member], names: &[String]) -> Vec<MemberFinding> {
    let name_of = |path: &str| {
        let place = members.iter().position(|member| member.path == path)?;
        names.get(place)
    };
    let named = |finding: PackageFinding| {
        let PackageFinding { kind, member, text, .. } = finding;
        let path = member.map_or_else(|| names.first(), |member| name_of(&member))?.clone();
        Some(MemberFinding { path, kind, text })
    };
    package.findings().into_iter().filter_map(named).collect()
}

impl Found {
    /// The paths that it gives to what is in it.
    fn inner(&self) -> impl Iterator<Item = &str> {
        let package = usize::from(matches!(self.open, Open::Package(_)));
        self.members.iter().skip(package).map(|member| member.path.as_str())
    }
}

/// What the files are called: by the last part of their paths, or the whole where several share
/// that.
fn file_names(paths: &[impl AsRef<Path>]) -> Vec<String> {
    let short = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut count: HashMap<Option<String>, usize> = HashMap::new();
    for path in paths {
        *count.entry(short(path.as_ref())).or_default() += 1;
    }
    let mut used = HashMap::new();
    let name = |path: &Path| match short(path) {
        Some(short) if count[&Some(short.clone())] == 1 => short,
        _ => path.display().to_string(),
    };
    paths.iter().map(|path| unused(&mut used, name(path.as_ref()))).collect()
}

/// The first parts of paths that more than one file, package or set of groups would have.
fn shared_names(found: &[Found], files: &[String]) -> HashSet<String> {
    let mut owners: HashMap<&str, usize> = HashMap::new();
    for file in files {
        *owners.entry(first_part(file)).or_default() += 1;
    }
    for found in
        found.iter().filter(|found| matches!(found.open, Open::Package(_) | Open::Groups(_)))
    {
        for name in found.inner().map(first_part).collect::<HashSet<_>>() {
            *owners.entry(name).or_default() += 1;
        }
    }
    owners.into_iter().filter(|(_, count)| *count > 1).map(|(name, _)| name.to_owned()).collect()
}

fn first_part(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

/// The name, with a number behind it if it is taken. `used`: the names so far, and how many more
/// wanted each.
fn unused(used: &mut HashMap<String, u64>, name: String) -> String {
    let mut free = name.clone();
    while used.contains_key(&free) {
        let number = used.entry(name.clone()).or_insert(1);
        *number += 1;
        free = format!("{name} ({number})");
    }
    used.insert(free.clone(), 1);
    free
}
