//! Pictures as PNG files, on a machine that need not have fonts.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

pub const FONT: &str = "sans-serif";

pub type Canvas<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// What `draw` draws, as a PNG file.
pub fn png(size: (u32, u32), draw: impl FnOnce(&Canvas) -> Result<()>) -> Result<Vec<u8>> {
    let font = epaint_default_fonts::HACK_REGULAR;
    plotters::style::register_font(FONT, FontStyle::Normal, font)
        .map_err(|_| anyhow!("the font cannot be read"))?;
    let mut pixels = vec![0; (size.0 * size.1 * 3) as usize];
    let canvas = BitMapBackend::with_buffer(&mut pixels, size).into_drawing_area();
    draw(&canvas)?;
    canvas.present()?;
    drop(canvas);

    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size.0, size.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    encoder.write_header()?.write_image_data(&pixels)?;
    Ok(file)
}

/// Text of that size, black.
pub fn black(size: i32) -> TextStyle<'static> {
    (FONT, size).into_font().color(&BLACK)
}
