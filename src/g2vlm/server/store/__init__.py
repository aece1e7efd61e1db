"""Uploads and scenes on the disk: whole or absent, and each tenant's own."""
