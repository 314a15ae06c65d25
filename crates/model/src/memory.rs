//! How much memory this process may take.
//!
//! A few bytes of a file can describe gigabytes: a border, a product of dimensions, a run of zeros that was compressed. What is
//! allocated on the word of a file is therefore checked here first, with its size. The limit is that of the process, since
//! memory is: [`set_limit`] sets one; without it, it is three quarters of what the machine, the control group and the
//! address space have left, and a single allocation of more than 1 GiB may be at most 1,000 times the bytes that were read.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::ModelError;

/// The limit that was set; 0 where none was.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// Bytes of files that were read.
static READ: AtomicU64 = AtomicU64::new(0);

/// Smaller allocations are not checked: finding out what is left takes longer.
const SMALL: u64 = 1 << 20;

/// An allocation up to this size may be any number of times what was read.
const MOST_UNREAD: u64 = 1 << 30;

/// How many times the bytes that were read a larger allocation may have.
const MOST_TIMES: u64 = 1_000;

/// Sets how many bytes the process may take, those it has included.
pub fn set_limit(bytes: u64) {
    LIMIT.store(bytes.max(1), Ordering::Relaxed);
}

/// Counts the bytes of a file that is read: allocations are compared with their sum.
pub fn count_read(bytes: u64) {
    READ.fetch_add(bytes, Ordering::Relaxed);
}

/// Checks that `bytes` can be allocated for `what`.
///
/// # Errors
/// [`ModelError::Memory`] with the limit.
pub fn check(what: impl FnOnce() -> String, bytes: u64) -> Result<(), ModelError> {
    if bytes < SMALL {
        return Ok(());
    }
    let limit = limit();
    let most = most(limit);
    if bytes <= most {
        return Ok(());
    }
    Err(ModelError::Memory {
        what: what(),
        most: match limit {
            Some(limit) => format!("{} more, by the limit of {}", size(most), size(limit)),
            None => size(most),
        },
        got: size(bytes),
    })
}

/// The limit of the process in words, and where it comes from.
pub fn describe() -> String {
    match limit() {
        Some(limit) => format!("memory: at most {}, as was asked for", size(limit)),
        None => match most(None) {
            u64::MAX => "memory: no limit, as the system does not say what is left".into(),
            most => format!(
                "memory: at most {} more in one piece, by what the machine has left and the files that were read",
                size(most)
            ),
        },
    }
}

/// The limit that was set, where one was.
fn limit() -> Option<u64> {
    Some(LIMIT.load(Ordering::Relaxed)).filter(|limit| *limit > 0)
}

/// Most bytes that may be allocated now, by the limit that was set, where one was.
fn most(limit: Option<u64>) -> u64 {
    match limit {
        Some(limit) => limit.saturating_sub(resident()),
        None => default_most(left(), READ.load(Ordering::Relaxed)),
    }
}

/// [`check`] for `elements` of `width` bytes each.
///
/// # Errors
/// As [`check`].
pub fn check_elements(
    what: impl FnOnce() -> String,
    elements: usize,
    width: usize,
) -> Result<(), ModelError> {
    check(what, (elements as u64).saturating_mul(width as u64))
}

/// Most bytes of one allocation where no limit is set, of `left` bytes and after `read` bytes of files.
fn default_most(left: Option<u64>, read: u64) -> u64 {
    let share = left.map_or(u64::MAX, |left| left / 4 * 3);
    // A network that was made in code came from no file.
    let by_files = match read {
        0 => u64::MAX,
        read => read.saturating_mul(MOST_TIMES).max(MOST_UNREAD),
    };
    share.min(by_files)
}

/// Bytes that the machine, the control group and the address space have left; `None` where the system does not say.
fn left() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| kibibytes(&text, "MemAvailable:"));
    let address_space = || {
        let limits = fs::read_to_string("/proc/self/limits").ok()?;
        let taken = kibibytes(&fs::read_to_string("/proc/self/status").ok()?, "VmSize:")?;
        Some(address_space(&limits)?.saturating_sub(taken))
    };
    let all = [machine, control_group(), address_space()];
    all.into_iter().flatten().min()
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    kibibytes(&status, "VmRSS:").unwrap_or(0)
}

/// The number of KiB behind `key` in a file of `/proc`, in bytes.
fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(key))?;
    let number = line.split_ascii_whitespace().next()?;
    number.parse::<u64>().ok()?.checked_mul(1024)
}

/// The soft limit of the address space in `/proc/self/limits`; `None` where there is none.
fn address_space(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|l| l.strip_prefix("Max address space"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// What the control group of this process has left, in version 2 or 1.
fn control_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let left = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (root, [most, taken]) = match controllers {
            "" => ("/sys/fs/cgroup", ["memory.max", "memory.current"]),
            c if c.split(',').any(|c| c == "memory") => (
                "/sys/fs/cgroup/memory",
                ["memory.limit_in_bytes", "memory.usage_in_bytes"],
            ),
            _ => return None,
        };
        let number = |folder: &Path, name: &str| -> Option<u64> {
            let text = fs::read_to_string(folder.join(name)).ok()?;
            text.trim().parse().ok()
        };
        // Each group is within those above it. A container may see its own group as the root.
        let group = Path::new(root).join(path.trim_start_matches('/'));
        let within = group.ancestors().take_while(|f| f.starts_with(root));
        within
            .filter_map(|f| Some(number(f, most)?.saturating_sub(number(f, taken)?)))
            .min()
    };
    groups.lines().filter_map(left).min()
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..0x10_0000 => format!("{bytes} bytes"),
        0x10_0000..0x4000_0000 => format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20)),
        _ => format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_large_allocation_must_come_from_a_file_of_some_size() {
        assert_eq!(default_most(None, 400), GIB);
        assert_eq!(default_most(None, 2_000_000), 2_000_000_000);
        assert_eq!(default_most(None, 0), u64::MAX);
        assert_eq!(default_most(Some(4 * GIB), 0), 3 * GIB);
        assert_eq!(default_most(Some(GIB), 400), GIB / 4 * 3);
    }

    #[test]
    fn what_the_system_says_is_read() {
        let meminfo = "MemTotal:       24615032 kB\nMemAvailable:   23000000 kB\n";
        assert_eq!(kibibytes(meminfo, "MemAvailable:"), Some(23_000_000 * 1024));
        let limits = |soft: &str| {
            format!(
                "Limit   Soft Limit  Hard Limit  Units\nMax address space         {soft}   unlimited    bytes\n"
            )
        };
        assert_eq!(address_space(&limits("3072000000")), Some(3_072_000_000));
        assert_eq!(address_space(&limits("unlimited")), None);
        assert_eq!(size(14_400_480_004), "13.4 GiB");
        assert_eq!(size(3 << 20), "3 MiB");
    }

    #[test]
    fn a_small_allocation_passes_and_an_impossible_one_does_not() {
        assert_eq!(check(|| "a byte".into(), 1), Ok(()));
        let error = check_elements(|| "everything".into(), usize::MAX, 4).unwrap_err();
        assert!(error.to_string().contains("everything"), "{error}");
    }
}
