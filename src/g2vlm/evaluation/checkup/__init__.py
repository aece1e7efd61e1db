"""A checkup: is a checkpoint what it should be, and does this installation run it as it should?"""
