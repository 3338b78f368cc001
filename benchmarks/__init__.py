"""Speed, memory and cost of this project against others; `make bench` runs them."""
