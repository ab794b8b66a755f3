"""Images (PE) as Windows has them in memory: headers, symbol file, exports, resources and version. No memory here.

Facts: Microsoft's "PE Format" and "VS_VERSIONINFO structure" (learn.microsoft.com). Every function is given bytes that
somebody read at an RVA, believes none of them, and raises LayoutError where they are not what they should be.
"""
