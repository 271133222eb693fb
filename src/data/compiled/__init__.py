"""Keys counted, merged and looked up: keys.cc, and who calls it."""
