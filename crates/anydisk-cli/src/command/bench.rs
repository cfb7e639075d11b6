//! `anydisk bench`.

use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anydisk::{Disk, GuestOffset, on_threads};
use clap::{Args, ValueEnum};

use crate::args::{Cache, Part, Reading};
use crate::failure::{Failure, Outcome};
use crate::latency::Latencies;
use crate::naming;
use crate::options::{self, bytes_in, count_in};
use crate::output::json::{self, Object};
use crate::output::{self, human};

const EXAMPLES: &str = "\
Examples:
  anydisk bench disk.qcow2
  anydisk bench -w -c 1000 -s 64k --output=table disk.qcow2
  anydisk bench -t none -d 1 --output=json disk.qcow2

Beware: -w overwrites the disk.";

/// Reads or writes a disk and tells how long it takes.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Bench {
    /// Number of requests
    #[arg(short, long, default_value = "75000")]
    count: String,
    /// Requests at once
    #[arg(short, long, default_value = "64")]
    depth: String,
    /// The format, instead of looking at the bytes
    #[arg(short, long)]
    format: Option<String>,
    /// With -w: flush after so many requests
    #[arg(long, value_name = "N")]
    flush_interval: Option<String>,
    /// How requests are made (by threads, whatever is said; for qemu-img's sake)
    #[arg(short = 'i', long, value_name = "threads|native|io_uring")]
    aio: Option<String>,
    /// As -i native
    #[arg(short = 'n', long)]
    native: bool,
    /// With --flush-interval: go on with other requests during a flush
    #[arg(long)]
    no_drain: bool,
    /// Where the first request begins
    #[arg(short, long, default_value = "0")]
    offset: String,
    /// With -w: the byte that is written
    #[arg(long, default_value = "0")]
    pattern: String,
    /// What to print: human, qemu-img's lines; table and json tell rates and latencies too
    #[arg(long, value_enum, default_value = "human")]
    output: Shape,
    /// Print nothing but the result
    #[arg(short, long)]
    quiet: bool,
    /// Bytes of a request
    #[arg(short = 's', long, default_value = "4096")]
    buffer_size: String,
    /// From the beginning of a request to that of the next; the bytes of a request if it is not
    /// given
    #[arg(short = 'S', long)]
    step_size: Option<String>,
    /// How the host caches the file
    #[arg(short = 't', long, value_enum, default_value = "writeback")]
    cache: Cache,
    /// Write, instead of reading
    #[arg(short, long)]
    write: bool,
    /// The image; with --member the disks of one machine
    #[arg(required = true, value_name = "FILE")]
    files: Vec<OsString>,
    #[command(flatten)]
    part: Part,
    #[command(flatten)]
    reading: Reading,
}

/// What is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// Two lines, as qemu-img.
    Human,
    /// What was measured, as a table.
    Table,
    /// The same as JSON.
    Json,
}

/// What is to be done.
#[derive(Clone, Copy, Debug)]
struct Work {
    count: u64,
    depth: u64,
    bytes: usize,
    step: u64,
    offset: u64,
    /// The byte that is written; `None`: reading.
    pattern: Option<u8>,
    flush: Option<Flush>,
}

#[derive(Clone, Copy, Debug)]
struct Flush {
    interval: u64,
    /// Nothing else is under way meanwhile.
    drains: bool,
}

/// What came of it.
struct Measured {
    time: Duration,
    latencies: Latencies,
}

const INT: RangeInclusive<u64> = 1..=i32::MAX as u64;

impl Bench {
    pub(crate) fn run(mut self) -> Outcome {
        self.reading.warnings.be_quiet(self.quiet);
        let work = self.work()?;
        let (format, direct) = (self.format.as_deref(), self.cache.is_direct());
        self.check_aio()?;
        let disk = match &self.files[..] {
            _ if !self.write => self.reading.part(&self.part, &self.files, format, direct)?,
            [file] if self.part.member.is_none() => {
                self.reading.disk_to_write(file, format, direct)?
            }
            _ => return Err(Failure::new("What lies in the members of a disk is only read")),
        };
        if self.output == Shape::Human {
            output::print(&work.announced())?;
        }
        let measured = work.done(&disk)?;
        if self.write {
            disk.flush()?; // Its tables reach the file only so.
        }
        output::print(&match self.output {
            Shape::Human => {
                format!("Run completed in {:.3} seconds.\n", measured.time.as_secs_f64())
            }
            Shape::Table => work.table(&measured),
            Shape::Json => json::document(&work.object(&measured).into()),
        })?;
        Ok(0)
    }

    fn work(&self) -> Result<Work, Failure> {
        let size = |text: &str, what| options::number_of_bytes(text, what);
        if let Some(aio) = &self.aio
            && !["threads", "native", "io_uring"].contains(&&**aio)
        {
            return Err(Failure::new(format!("Invalid aio option: {aio}")));
        }
        let bytes = bytes_in(&self.buffer_size, "buffer size", INT)?;
        let work = Work {
            count: count_in(&self.count, "request count", INT)?,
            depth: count_in(&self.depth, "queue depth", INT)?,
            bytes: usize::try_from(bytes).unwrap_or(usize::MAX),
            step: self.step(bytes)?,
            offset: size(&self.offset, "offset")?,
            pattern: self.pattern()?,
            flush: self.flush()?,
        };
        match work.flush {
            Some(_) if !self.write => {
                Err(Failure::new("--flush-interval is only available in write tests"))
            }
            Some(flush) if flush.interval < work.depth => {
                Err(Failure::new("Flush interval can't be smaller than depth"))
            }
            _ => Ok(work),
        }
    }

    /// Requests are made by threads, whatever is said; but what qemu refuses is a mistake.
    fn check_aio(&self) -> Result<(), Failure> {
        let is_native = self.native || self.aio.as_deref() == Some("native");
        if !is_native || self.cache.is_direct() {
            return Ok(());
        }
        let file = self.files.first().map_or(OsStr::new(""), |file| file);
        let why =
            "aio=native was specified, but it requires cache.direct=on, which was not specified.";
        Err(naming::cannot_open(file, why))
    }

    /// Nothing, and zero, is the bytes of a request.
    fn step(&self, bytes: u64) -> Result<u64, Failure> {
        let step = self
            .step_size
            .as_deref()
            .map_or(Ok(0), |text| bytes_in(text, "step size", 0..=*INT.end()));
        Ok(Some(step?).filter(|step| *step > 0).unwrap_or(bytes))
    }

    fn pattern(&self) -> Result<Option<u8>, Failure> {
        let byte = count_in(&self.pattern, "pattern byte", 0..=255)?;
        Ok(self.write.then_some(u8::try_from(byte).unwrap_or(u8::MAX)))
    }

    fn flush(&self) -> Result<Option<Flush>, Failure> {
        let interval = self.flush_interval.as_deref();
        let interval = interval.map(|text| count_in(text, "flush interval", 0..=*INT.end()));
        let flush = |interval| Flush { interval, drains: !self.no_drain };
        Ok(interval.transpose()?.filter(|interval| *interval > 0).map(flush))
    }
}

impl Work {
    /// What qemu-img says before it begins.
    fn announced(&self) -> String {
        let Self { count, depth, bytes, step, offset, .. } = self;
        let what = if self.pattern.is_some() { "write" } else { "read" };
        let mut text = format!(
            "Sending {count} {what} requests, {bytes} bytes each, {depth} in parallel \
             (starting at offset {offset}, step size {step})\n"
        );
        if let Some(Flush { interval, .. }) = self.flush {
            text += &format!("Sending flush every {interval} requests\n");
        }
        text
    }

    /// Sends the requests.
    fn done(&self, disk: &Disk) -> Result<Measured, Failure> {
        let next = AtomicU64::new(0);
        let all = Mutex::new(Ok(Latencies::default()));
        let drain = RwLock::new(());
        let begun = Instant::now();
        on_threads(usize::try_from(self.depth.min(self.count)).unwrap_or(usize::MAX), &|| {
            let own = self.requests(disk, &next, &drain);
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            match (&mut *all, own) {
                (Ok(all), Ok(own)) => all.add(&own),
                (Ok(_), Err(error)) => *all = Err(error),
                (Err(_), _) => {}
            }
        });
        let time = begun.elapsed();
        let latencies = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        let failed = |error| {
            let failure = Failure::new("Failed request: Input/output error");
            failure.with_advice(&Failure::from(error).text)
        };
        Ok(Measured { time, latencies: latencies.map_err(failed)? })
    }

    /// The requests of one thread.
    fn requests(
        &self,
        disk: &Disk,
        next: &AtomicU64,
        drain: &RwLock<()>,
    ) -> anydisk::Result<Latencies> {
        let mut latencies = Latencies::default();
        let mut buffer = vec![self.pattern.unwrap_or(0); self.bytes];
        loop {
            let index = next.fetch_add(1, Relaxed);
            if index >= self.count {
                return Ok(latencies);
            }
            let begun = Instant::now();
            let pending = drain.read().unwrap_or_else(PoisonError::into_inner);
            let asked = self.request(disk, self.place(index, disk.size()), &mut buffer);
            drop(pending);
            if let Err(error) = asked.and_then(|()| self.flush_after(index, disk, drain)) {
                next.store(self.count, Relaxed); // The others need not go on.
                return Err(error);
            }
            latencies.count(begun.elapsed());
        }
    }

    /// Where a request begins: round and round.
    fn place(&self, index: u64, size: u64) -> GuestOffset {
        let at = u128::from(self.offset) + u128::from(self.step) * u128::from(index);
        let inside = if index == 0 { at } else { at % u128::from(size.max(1)) };
        GuestOffset(u64::try_from(inside).unwrap_or(u64::MAX))
    }

    fn request(&self, disk: &Disk, at: GuestOffset, buffer: &mut [u8]) -> anydisk::Result<()> {
        match self.pattern {
            Some(_) => disk.write(at, buffer),
            None => disk.read(at, buffer),
        }
    }

    fn flush_after(&self, index: u64, disk: &Disk, drain: &RwLock<()>) -> anydisk::Result<()> {
        let Some(Flush { interval, drains }) = self.flush else { return Ok(()) };
        if !(index + 1).is_multiple_of(interval) {
            return Ok(());
        }
        let alone = drains.then(|| drain.write().unwrap_or_else(PoisonError::into_inner));
        let flushed = disk.flush();
        drop(alone);
        flushed
    }

    /// Requests and bytes in a second.
    fn rates(&self, measured: &Measured) -> [u64; 2] {
        let nanos = measured.time.as_nanos().max(1);
        [1, self.bytes as u64].map(|each| {
            let all = u128::from(self.count) * u128::from(each) * 1_000_000_000;
            u64::try_from(all / nanos).unwrap_or(u64::MAX)
        })
    }

    fn table(&self, measured: &Measured) -> String {
        let [requests, bytes] = self.rates(measured);
        let what = if self.pattern.is_some() { "writes" } else { "reads" };
        let mut rows = vec![
            (what.to_owned(), format!("{} of {}", self.count, human::size(self.bytes as u64))),
            ("at once".to_owned(), self.depth.to_string()),
            ("time".to_owned(), format!("{:.3} s", measured.time.as_secs_f64())),
            ("rate".to_owned(), format!("{requests}/s")),
            (String::new(), format!("{}/s", human::size(bytes))),
        ];
        for (name, time) in measured.latencies.percentiles() {
            rows.push((format!("latency {name}"), micros(time)));
        }
        rows.iter().map(|(name, value)| format!("{name:<14}{value:>20}\n")).collect()
    }

    fn object(&self, measured: &Measured) -> Object {
        let [requests, bytes] = self.rates(measured);
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let add = |object: Object, (name, time)| object.with(name, nanos(time));
        let latencies = measured.latencies.percentiles();
        let latencies = latencies.into_iter().fold(Object::default(), add);
        Object::default()
            .with("write", self.pattern.is_some())
            .with("count", self.count)
            .with("depth", self.depth)
            .with("buffer-size", self.bytes as u64)
            .with("time-ns", nanos(measured.time))
            .with("requests-per-second", requests)
            .with("bytes-per-second", bytes)
            .with("latency-ns", latencies)
    }
}

fn micros(time: Duration) -> String {
    format!("{:.1} us", time.as_secs_f64() * 1e6)
}
