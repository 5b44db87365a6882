//! How many tests passed and failed, read from what test executables print.

use std::{process::ExitStatus, time::Duration};

/// Numbers of one executable.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// Names of tests that failed.
    failures: Vec<String>,
    /// Whether the executable came to its end.
    is_complete: bool,
}

impl Tally {
    /// Of the output of an executable; there may be several results, one for each library with documents.
    pub fn of(output: &str) -> Self {
        let mut tally = Self::default();
        for line in output.lines() {
            if let Some(numbers) = line.strip_prefix("test result: ") {
                tally.is_complete = true;
                tally.passed += number_before(numbers, " passed");
                tally.failed += number_before(numbers, " failed");
                tally.ignored += number_before(numbers, " ignored");
            } else if let Some(name) = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED")) {
                tally.failures.push(name.to_owned());
            }
        }
        tally
    }
}

/// The number that stands before a word, as in `ok. 12 passed; 0 failed`.
fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split(word).next().unwrap_or_default();
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// All executables of a run.
#[derive(Debug, Default)]
pub struct Total {
    executables: u64,
    sum: Tally,
    /// What failed, with its executable.
    failed: Vec<String>,
}

impl Total {
    /// Adds one. An executable that ended by a signal, or before its result, has failed as a whole.
    pub fn add(&mut self, name: &str, status: ExitStatus, tally: &Tally) {
        self.executables += 1;
        self.sum.passed += tally.passed;
        self.sum.failed += tally.failed;
        self.sum.ignored += tally.ignored;
        self.failed.extend(tally.failures.iter().map(|test| format!("{test} ({name})")));
        if !status.success() && (!tally.is_complete || tally.failures.is_empty()) {
            self.failed.push(format!("{name}: {status}"));
        }
    }

    /// Whether nothing failed.
    pub fn is_passed(&self) -> bool {
        self.failed.is_empty() && self.sum.failed == 0
    }

    /// What failed by name, and the numbers.
    pub fn summary(&self, took: Duration) -> String {
        let mut lines = Vec::new();
        if !self.failed.is_empty() {
            lines.push("failed:".to_owned());
            lines.extend(self.failed.iter().map(|name| format!("    {name}")));
        }
        let result = if self.is_passed() { "ok" } else { "FAILED" };
        lines.push(format!(
            "all tests: {result}. {} passed; {} failed; {} ignored; {} executables in {:.1} s",
            self.sum.passed,
            self.sum.failed,
            self.sum.ignored,
            self.executables,
            took.as_secs_f64()
        ));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

    use super::{Tally, Total};

    const PASSED: &str = "\nrunning 2 tests\ntest one ... ok\ntest two ... ok\n\n\
        test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 7 filtered out; finished in 0.10s\n\n";
    const FAILED: &str = "\nrunning 2 tests\ntest one ... ok\ntest two::three ... FAILED\n\nfailures:\n\n\
        ---- two::three stdout ----\nassertion failed\n\nfailures:\n    two::three\n\n\
        test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s\n\n";

    fn total(parts: &[(&str, i32)]) -> Total {
        let mut total = Total::default();
        for (output, raw_status) in parts {
            total.add("a of b", ExitStatus::from_raw(*raw_status), &Tally::of(output));
        }
        total
    }

    #[test]
    fn numbers_of_all_executables_are_added() {
        let total = total(&[(PASSED, 0), (PASSED, 0)]);
        assert!(total.is_passed());
        let took = Duration::from_millis(1500);
        assert_eq!(total.summary(took), "all tests: ok. 4 passed; 0 failed; 0 ignored; 2 executables in 1.5 s");
    }

    #[test]
    fn failed_tests_are_named() {
        let total = total(&[(PASSED, 0), (FAILED, 101 << 8)]);
        assert!(!total.is_passed());
        assert_eq!(
            total.summary(Duration::ZERO),
            "failed:\n    two::three (a of b)\nall tests: FAILED. 3 passed; 1 failed; 0 ignored; 2 executables in 0.0 s"
        );
    }

    #[test]
    fn executable_that_dies_has_failed() {
        let died = total(&[("running 2 tests\ntest one ... ok\n", 6)]);
        assert!(!died.is_passed(), "by a signal");
        assert!(died.summary(Duration::ZERO).contains("a of b: signal: 6"), "{}", died.summary(Duration::ZERO));
        assert!(!total(&[(PASSED, 101 << 8)]).is_passed(), "by its status, after all tests passed");
    }
}
