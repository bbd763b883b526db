//! What can be done with the files.

use std::error::Error;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use pugmark::snapshot::{Chain, FileInfo, RegionLayout};

type Outcome = Result<(), Box<dyn Error>>;

pub fn info(path: &Path) -> Outcome {
    if !path.is_dir() {
        println!("{}", FileInfo::read(path)?);
        return Ok(());
    }
    let chain = Chain::open(path)?;
    for file in chain.files() {
        println!("{file}");
    }
    println!("{}", summary(&chain));
    Ok(())
}

pub fn verify(path: &Path) -> Outcome {
    if !path.is_dir() {
        println!("{}", FileInfo::verify(path)?);
        return Ok(());
    }
    let chain = Chain::open(path)?;
    chain.verify()?;
    println!("{}: as it was written", summary(&chain));
    Ok(())
}

pub fn restore(folder: &Path, image: &Path, at: Option<u64>) -> Outcome {
    let chain = match at {
        Some(sequence) => Chain::open_at(folder, sequence)?,
        None => Chain::open(folder)?,
    };
    let last = chain.files().last().ok_or("the chain is empty")?;
    let (regions, memory) = (&last.regions, last.memory());
    // All zero, and sparse, until it is written to.
    let mut file = File::create(image)?;
    file.set_len(memory)?;
    let bar = bar(memory);
    chain.restore(|address, bytes| {
        bar.inc(bytes.len() as u64);
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(());
        }
        file.seek(SeekFrom::Start(offset(regions, address)))?;
        file.write_all(bytes)
    })?;
    file.sync_all()?;
    bar.finish_and_clear();
    println!(
        "{}: checkpoint {}, {memory} bytes",
        image.display(),
        last.sequence
    );
    for region in regions {
        println!("  {:#x}: memory {region}", offset(regions, region.base));
    }
    Ok(())
}

pub fn merge(folder: &Path) -> Outcome {
    let mut chain = Chain::open(folder)?;
    let before = summary(&chain);
    chain.merge()?;
    println!("{before}\nmerged: {}", summary(&chain));
    Ok(())
}

/// Where an address is in an image of the regions, one after the other.
fn offset(regions: &[RegionLayout], address: u64) -> u64 {
    let before = regions.iter().filter(|region| region.base <= address);
    before
        .map(|region| (address - region.base).min(region.size))
        .sum()
}

pub fn summary(chain: &Chain) -> String {
    let files = chain.files();
    let bytes: u64 = files.iter().map(|file| file.file_size).sum();
    let full: u64 = files.iter().map(FileInfo::memory).sum();
    format!(
        "{} in {:.1} MiB; as full copies {:.1} MiB, {:.1} % saved",
        match files.len() {
            1 => "1 checkpoint".to_owned(),
            n => format!("{n} checkpoints"),
        },
        mib(bytes),
        mib(full),
        100.0 - bytes as f64 * 100.0 / full as f64,
    )
}

pub fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

pub fn bar(bytes: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg:12} {bar:40.cyan/blue} {bytes:>11} of {total_bytes}, {bytes_per_sec}",
    );
    ProgressBar::new(bytes).with_style(style.expect("a template"))
}
