"""Published questions about pictures, brought into the question files that training reads."""
