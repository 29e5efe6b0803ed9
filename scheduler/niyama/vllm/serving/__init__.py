"""What stands at the HTTP door: from headers and bodies to one QoS, and back to the client what was served."""
