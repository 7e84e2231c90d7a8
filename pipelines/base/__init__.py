"""What every room uses: errors, progress, images, results kept between runs."""
