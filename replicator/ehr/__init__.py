"""What the record system understands: changed rows → jobs → compositions → what its answers mean."""
