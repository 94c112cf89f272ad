"""Networks: plain numbers in, tensors out; they know neither settings nor files."""
