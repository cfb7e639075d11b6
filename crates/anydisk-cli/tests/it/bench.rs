//! `anydisk bench`.

use crate::common::Bench;

#[test]
fn a_table_tells_rates_and_latencies() {
    let bench = Bench::new();
    bench.prints(&["create", "-q", "-f", "qcow2", "a.qcow2", "1M"]);
    let text = bench.prints(&["bench", "-c", "100", "-d", "2", "--output=table", "a.qcow2"]);
    let names = ["reads", "at once", "time", "rate", "", "latency p50", "latency p90"];
    let lines: Vec<&str> = text.lines().collect();
    for (line, name) in lines.iter().zip(names) {
        assert!(line.starts_with(name), "{text}");
    }
    assert!(lines[3].ends_with("/s") && lines[5].ends_with(" us"), "{text}");
    let json = bench.prints(&["bench", "-w", "-c", "100", "--output=json", "a.qcow2"]);
    for part in ["\"write\": true", "\"count\": 100", "\"latency-ns\": {", "\"p99\": "] {
        assert!(json.contains(part), "{json}");
    }
}

#[test]
fn a_pattern_is_written_all_over_the_disk() {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[]);
    let line = ["bench", "-w", "-f", "raw", "-c", "256", "--pattern=7", "--flush-interval=64"];
    bench.prints(&[&line[..], &["disk"]].concat());
    assert!(std::fs::read(bench.path("disk")).unwrap().iter().all(|byte| *byte == 7));
}

#[test]
fn a_request_behind_the_end_fails_with_its_reason() {
    let bench = Bench::new();
    bench.raw("disk", 1 << 20, &[]);
    let error = bench.fails(&["bench", "-f", "raw", "-c", "1", "-o", "2M", "disk"], 1);
    assert!(error.contains("Failed request: "), "{error}");
}

#[test]
fn what_was_written_is_there_afterwards() {
    let bench = Bench::new();
    bench.raw("base", 1 << 20, &[(0, b"base")]);
    bench.prints(&["create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", "top"]);
    bench.prints(&[
        "bench",
        "-w",
        "-c",
        "1",
        "-s",
        "65536",
        "--pattern",
        "7",
        "-f",
        "qcow2",
        "top",
    ]);
    bench.prints(&["convert", "-f", "qcow2", "top", "out"]);
    assert!(std::fs::read(bench.path("out")).unwrap()[..65536] == [7; 65536]);
}
