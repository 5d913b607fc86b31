//! What a process used: CPU from the scheduler's own books, memory from the kernel's.

use std::fs;
use std::path::Path;

use crate::Result;

/// Nanoseconds on a CPU so far: all threads of `pid` and of its children.
pub(crate) fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for pid in family(pid) {
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            // A thread may end between being listed and being read.
            let Ok(books) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
            sum += books
                .split(' ')
                .next()
                .and_then(|ns| ns.parse::<u64>().ok())
                .ok_or("schedstat has no time")?;
        }
    }
    Ok(sum)
}

/// Resident memory in bytes: `pid` and its children.
pub(crate) fn rss(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for pid in family(pid) {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        sum += line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024;
    }
    Ok(sum)
}

/// `pid` and those it started.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let tasks = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task"));
    for task in tasks.into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    all
}
