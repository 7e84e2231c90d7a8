"""What the commands of dev.py and the tests need: a host, its server, its page, a browser. No part of the pack itself."""
