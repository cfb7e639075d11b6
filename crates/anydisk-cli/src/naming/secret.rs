//! Passphrases: `--object secret,...`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anydisk::crypto::{CipherName, CipherSpec, IvGen, Mode, SectorCipher};
use anydisk::node::{self, Scalar};
use anydisk::storage::name;
use anydisk::{Error, Location, Secret, SecretProblem, SecretRequest, Secrets};
use base64ct::{Base64, Encoding};

use crate::failure::{Failure, no_secret};
use crate::{options, output};

/// The longest file that is read for a passphrase.
const MAX_FILE: u64 = 1 << 20;

/// The secrets that were given, by their names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects(BTreeMap<OsString, Secret>);

/// What an image asks for under one name.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// `encrypt.key-secret`
    pub(crate) option: String,
    /// The image; `None`: any that asks.
    pub(crate) location: Option<Location>,
    pub(crate) secret: Secret,
}

/// Answers the images that ask.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    /// What the command line says.
    pub(crate) given: Vec<Key>,
    /// Those that images name.
    pub(crate) objects: Objects,
    /// Nothing is read: an image whose secret is not there stays locked.
    pub(crate) may_lack: bool,
}

impl Keys {
    fn named(&self, id: &str, request: &SecretRequest<'_>) -> anydisk::Result<Option<Secret>> {
        match self.objects.0.get(OsStr::new(id)) {
            None if !self.may_lack => {
                let why = SecretProblem::Unknown(id.to_owned());
                Err(Error::Secret { option: request.option, why })
            }
            secret => Ok(secret.cloned()),
        }
    }
}

impl Secrets for Keys {
    fn secret(&self, request: &SecretRequest<'_>) -> anydisk::Result<Option<Secret>> {
        if let Some(id) = request.id {
            return self.named(id, request);
        }
        let is_meant = |key: &&Key| {
            key.option == request.option
                && key.location.as_ref().is_none_or(|location| location == request.location)
        };
        Ok(self.given.iter().find(is_meant).map(|key| key.secret.clone()))
    }
}

/// What the options of a secret say.
#[derive(Default)]
struct Text {
    kind: Option<OsString>,
    id: Option<OsString>,
    data: Option<Secret>,
    file: Option<OsString>,
    is_base64: bool,
    key: Option<OsString>,
    iv: Option<String>,
}

impl Objects {
    /// Adds what `--object` says.
    pub(crate) fn add(&mut self, list: &OsStr) -> Result<(), Failure> {
        if let Some(help) = help(list) {
            output::print(help)?;
            // Whoever asked for help wants nothing else.
            return Err(Failure::new("").with_code(0));
        }
        let mut text = Text::default();
        let pairs = pairs(list)?;
        if let Some((_, kind)) = pairs.iter().find(|(name, _)| name == "qom-type")
            && kind != "secret"
        {
            return Err(unknown(kind));
        }
        pairs.into_iter().try_for_each(|(name, value)| text.set(&name, value))?;
        match text.kind.take() {
            Some(kind) if kind == "secret" => {}
            Some(kind) => return Err(unknown(&kind)),
            None => return Err(Failure::new("Parameter 'qom-type' is missing")),
        }
        let id = text.id.take().ok_or_else(|| Failure::new("Parameter 'id' is missing"))?;
        check_id(&id)?;
        let secret = self.secret_of(text)?;
        if self.0.insert(id.clone(), secret).is_some() {
            let id = name::of(&id);
            return Err(Failure::new(format!(
                "attempt to add duplicate property '{id}' to object (type 'container')"
            )));
        }
        Ok(())
    }

    /// The secret of this name.
    pub(crate) fn secret(&self, id: &OsStr) -> Result<&Secret, String> {
        self.0.get(id).ok_or_else(|| no_secret(&name::of(id)))
    }

    fn secret_of(&self, text: Text) -> Result<Secret, Failure> {
        let bytes = match (&text.data, &text.file) {
            (Some(_), Some(_)) => {
                return Err(Failure::new("'file' and 'data' are mutually exclusive"));
            }
            (Some(data), None) => data.clone(),
            (None, Some(file)) => read(file)?,
            (None, None) => return Err(Failure::new("Either 'file' or 'data' must be provided")),
        };
        let bytes = if text.is_base64 { decoded(bytes.as_bytes())? } else { bytes };
        match &text.key {
            Some(id) => {
                let key = self.secret(id).map_err(Failure::new)?;
                let iv = text.iv.ok_or_else(|| Failure::new("IV is required to decrypt secret"))?;
                Ok(unwrapped(key.as_bytes(), decoded(iv.as_bytes())?.as_bytes(), bytes.as_bytes())?)
            }
            None => Ok(bytes),
        }
    }
}

impl Text {
    fn set(&mut self, name: &str, value: OsString) -> Result<(), Failure> {
        match name {
            "qom-type" => self.kind = Some(value),
            "id" => self.id = Some(value),
            // Takes the bytes over, to wipe them.
            "data" => self.data = Some(Secret::new(value.into_vec())),
            "file" => self.file = Some(value),
            "format" if value == "raw" => self.is_base64 = false,
            "format" if value == "base64" => self.is_base64 = true,
            "format" => {
                let value = name::of(&value);
                return Err(Failure::new(format!(
                    "Parameter 'format' does not accept value '{value}'"
                )));
            }
            "keyid" => self.key = Some(value),
            "iv" => self.iv = Some(value.to_string_lossy().into_owned()),
            _ => return Err(Failure::new(format!("Parameter '{name}' is unexpected"))),
        }
        Ok(())
    }
}

/// qemu-img's help about objects, as far as they are here, if that is asked for.
fn help(list: &OsStr) -> Option<&'static str> {
    match &options::split(list)[..] {
        [kind] if kind == "help" => Some("List of user creatable objects:\n  secret\n"),
        [kind, rest @ ..] if kind == "secret" && rest.iter().any(|item| item == "help") => Some(
            "secret options:\n  data=<string>\n  file=<string>\n  format=<QCryptoSecretFormat>\n  \
             iv=<string>\n  keyid=<string>\n",
        ),
        _ => None,
    }
}

/// Names and values, from a list that begins with the type of the object, or from JSON.
fn pairs(list: &OsStr) -> Result<Vec<(String, OsString)>, Failure> {
    if list.as_bytes().starts_with(b"{") {
        let flat = node::flat(list.as_bytes()).map_err(Failure::new)?;
        let pair = |(name, value): (String, Scalar)| match value {
            Scalar::Text(text) => Ok((name, text)),
            _ => {
                Err(Failure::new(format!("Invalid parameter type for '{name}', expected: string")))
            }
        };
        return flat.into_iter().map(pair).collect();
    }
    // Every copy that may hold the passphrase is wiped.
    let items = options::split(list).into_iter().map(|item| Secret::new(item.into_vec()));
    let mut pairs = Vec::new();
    for (place, item) in items.enumerate() {
        if place > 0 && !item.as_bytes().contains(&b'=') {
            let name = name::shown(item.as_bytes());
            return Err(Failure::new(format!("Expected '=' after parameter '{name}'")));
        }
        pairs.push(match item.as_bytes().contains(&b'=') {
            true => options::named_value(item.as_bytes()),
            // A word alone at the beginning is the type.
            false => ("qom-type".into(), OsStr::from_bytes(item.as_bytes()).to_owned()),
        });
    }
    Ok(pairs)
}

/// Names are plain, so that other options can name them.
fn check_id(id: &OsStr) -> Result<(), Failure> {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
    match id.as_bytes() {
        [first, rest @ ..] if first.is_ascii_alphabetic() && rest.iter().all(is_plain) => Ok(()),
        _ => Err(Failure::new(
            "Parameter 'id' expects an identifier\nIdentifiers consist of letters, digits, '-', \
             '.', '_', starting with a letter.",
        )),
    }
}

fn unknown(kind: &OsStr) -> Failure {
    let kind = name::of(kind);
    Failure::new(format!("Parameter 'qom-type' does not accept value '{kind}'"))
        .with_advice("Of qemu's objects only secrets are of use here: secret,id=NAME,file=FILE")
}

/// All bytes of a file, a newline at its end too.
fn read(file: &OsStr) -> Result<Secret, Failure> {
    use std::io::Read;
    let told = |error: std::io::Error| {
        let why = Failure::from(error).text;
        let file = name::of(file);
        Failure::new(format!("Unable to read {file}: Failed to open file “{file}”: {why}"))
    };
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(told)?;
    opened.take(MAX_FILE + 1).read_to_end(&mut bytes).map_err(told)?;
    if bytes.len() as u64 > MAX_FILE {
        let file = name::of(file);
        return Err(Failure::new(format!(
            "Unable to read {file}: it is longer than {MAX_FILE} bytes"
        )));
    }
    Ok(Secret::new(bytes))
}

fn decoded(text: &[u8]) -> Result<Secret, Failure> {
    let text: Vec<u8> = text.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect();
    let text = Secret::new(text);
    let mut bytes = vec![0; text.as_bytes().len()];
    let len = Base64::decode(text.as_bytes(), &mut bytes)
        .map_err(|_| Failure::new("Base64 data contains invalid characters"))?
        .len();
    bytes.truncate(len);
    Ok(Secret::new(bytes))
}

/// Bytes of a block of AES.
const BLOCK: usize = 16;

/// A secret that was wrapped with another one: AES-256-CBC, padded as PKCS #7 says.
fn unwrapped(key: &[u8], iv: &[u8], wrapped: &[u8]) -> Result<Secret, Failure> {
    if key.len() != 32 {
        return Err(Failure::new("Key should be 32 bytes in length"));
    }
    if iv.len() != BLOCK {
        let len = iv.len();
        return Err(Failure::new(format!("IV should be 16 bytes in length not {len}")));
    }
    if wrapped.is_empty() || !wrapped.len().is_multiple_of(BLOCK) {
        let len = wrapped.len();
        return Err(Failure::new(format!("Length {len} must be a multiple of block size 16")));
    }
    let plain = Secret::new(cbc(key, iv, wrapped)?);
    let padding = plain.as_bytes().last().map_or(0, |byte| usize::from(*byte));
    match plain.as_bytes().len().checked_sub(padding) {
        Some(len) if padding <= BLOCK => Ok(Secret::new(plain.as_bytes()[..len].to_vec())),
        _ => Err(Failure::new(format!(
            "Incorrect number of padding bytes ({padding}) found on decrypted data"
        ))),
    }
}

/// The cipher knows whole sectors, each with a number for its IV; with any IV at all a chain is
/// made of blocks that are decrypted by themselves.
fn cbc(key: &[u8], iv: &[u8], wrapped: &[u8]) -> Result<Vec<u8>, Failure> {
    const SECTOR: usize = 512;
    let spec = CipherSpec { cipher: CipherName::Aes, mode: Mode::Ecb, iv: IvGen::Null };
    let cipher =
        SectorCipher::new(spec, key, SECTOR).map_err(|error| Failure::new(error.to_string()))?;
    let mut plain = wrapped.to_vec();
    plain.resize(wrapped.len().next_multiple_of(SECTOR), 0);
    cipher.decrypt(0, &mut plain);
    plain.truncate(wrapped.len());
    let before = iv.iter().chain(wrapped);
    plain.iter_mut().zip(before).for_each(|(byte, before)| *byte ^= before);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(lists: &[&str]) -> Result<Vec<u8>, String> {
        let mut objects = Objects::default();
        lists.iter().try_for_each(|list| objects.add(OsStr::new(list)).map_err(|f| f.text))?;
        Ok(objects.secret(OsStr::new("s"))?.as_bytes().to_vec())
    }

    #[test]
    fn a_secret_is_text_or_base64_with_doubled_commas() {
        assert_eq!(secret(&["secret,id=s,data=a,,b"]).unwrap(), b"a,b");
        assert_eq!(secret(&["secret,id=s,data=YSxi,format=base64"]).unwrap(), b"a,b");
        assert_eq!(secret(&["qom-type=secret,id=s,data="]).unwrap(), b"");
        let json = r#"{"qom-type": "secret", "id": "s", "data": "a,b"}"#;
        assert_eq!(secret(&[json]).unwrap(), b"a,b");
    }

    #[test]
    fn a_file_is_read_with_its_newline() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "pass\n").unwrap();
        let list = format!("secret,id=s,file={}", file.path().display());
        assert_eq!(secret(&[&list]).unwrap(), b"pass\n");
    }

    // openssl enc -aes-256-cbc -K 3031..3f40 -iv 6162..70 -a <<< swordfish
    #[test]
    fn a_wrapped_secret_is_unwrapped() {
        let key = "secret,id=k,data=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=,format=base64";
        let wrapped = "secret,id=s,keyid=k,iv=YWJjZGVmZ2hpamtsbW5vcA==,format=base64,data=dxoQQEwWr281Qrgdy64hRQ==";
        assert_eq!(secret(&[key, wrapped]).unwrap(), b"swordfish");
    }

    #[test]
    fn refusals_name_no_passphrase() {
        for (list, error) in [
            ("secret,id=s", "Either 'file' or 'data' must be provided"),
            ("secret,id=s,data=a,file=b", "'file' and 'data' are mutually exclusive"),
            ("secret,data=a", "Parameter 'id' is missing"),
            ("secret,id=s,data=a,format=hex", "Parameter 'format' does not accept value 'hex'"),
            ("secret,id=s,data=!!,format=base64", "Base64 data contains invalid characters"),
            ("secret,id=s,data=a,foo=b", "Parameter 'foo' is unexpected"),
            ("secret,id=s,data=a,keyid=k", "No secret with id 'k'"),
            ("secret,id=t,data=a", "No secret with id 's'"),
        ] {
            assert_eq!(secret(&[list]).unwrap_err(), error, "{list}");
        }
        let twice = secret(&["secret,id=s,data=a", "secret,id=s,data=b"]).unwrap_err();
        assert!(twice.contains("duplicate property 's'"), "{twice}");
        let other = secret(&["throttle-group,id=a"]).unwrap_err();
        assert!(other.contains("does not accept value 'throttle-group'"), "{other}");
    }
}
