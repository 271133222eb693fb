"""Raw rows: found, unpacked, read as blocks of labels, numbers and keys, whatever form their files have."""
