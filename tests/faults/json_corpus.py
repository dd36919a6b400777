"""JSON that is none, and JSON that looks as if it were none, in the spirit of JSONTestSuite. Only bytes, no tests."""

from __future__ import annotations

# A value, or what is no value, for each; an empty place is one of them.
INVALID: dict[str, bytes] = {
    "nothing": b"", "a comma": b",", "a colon": b":", "a bracket": b"]", "a brace": b"}", "an open list": b"[1",
    "an open object": b'{"a":1', "an open string": b'"a', "an open key": b'{"a', "a key alone": b'{"a"}',
    "no value": b'{"a":}', "no comma": b"[1 2]", "two commas": b"[1,,2]", "a comma at the end": b"[1,]",
    "a comma at the start": b"[,1]", "a comma in braces": b'{"a":1,}', "a number as key": b"{1:1}",
    "a bare key": b"{a:1}",
    "single quotes": b"'a'", "a comment": b"1/**/", "a line comment": b"1//x", "a hash comment": b"1#x",
    "two values": b"1 2",
    "brackets crossed": b'["a",{]}', "a colon in a list": b'["a":1]', "a comma for a colon": b'{"a",1}',
    "equals": b'{"a"=1}', "undefined": b"undefined", "True": b"True", "TRUE": b"TRUE", "nul": b"nul", "fals": b"fals",
    "nulll": b"nulll", "NaN": b"NaN", "-NaN": b"-NaN", "nan": b"nan", "Infinity": b"Infinity",
    "-Infinity": b"-Infinity",
    "Inf": b"Inf", "inf": b"inf", "+1": b"+1", "++1": b"++1", "-": b"-", "--1": b"--1", "- 1": b"- 1", "01": b"01",
    "-01": b"-01", "00": b"00", "1.": b"1.", ".5": b".5", "-.5": b"-.5", "1.e1": b"1.e1", "1e": b"1e", "1e+": b"1e+",
    "1e1.5": b"1e1.5", "1eE2": b"1eE2", "1_000": b"1_000", "1,5 as one": b"[1,5]x", "0x10": b"0x10", "0b1": b"0b1",
    "1L": b"1L", "1f": b"1f", "1 .5": b"1 .5", "full-width 1": b"\xef\xbc\x91", "a dot": b".", "an e": b"e1",
    "1e999": b"1e999", "-1e999": b"-1e999", "5,000 digits": b"9" * 5000, "a lone surrogate": rb'"\ud800"',
    "a lone low surrogate": rb'"\udc00"', "surrogates swapped": rb'"\udc00\ud800"', "half a pair": rb'"\ud834\u0020"',
    "half an escape": rb'"\u00"', "an escape without digits": rb'"\u"', "an escape of letters": rb'"\uzzzz"',
    "an unknown escape": rb'"\x41"', "an escaped quote at the end": rb'"\"', "a backslash alone": b'"\\',
    "a tab in a string": b'"a\tb"', "a line end in a string": b'"a\nb"', "a NUL in a string": b'"a\0b"', "a NUL": b"\0",
    "a DEL-less escape": b'"\x1b[0m"', "a bad byte": b'"\xff"', "an overlong slash": b'"\xc0\xaf"',
    "an overlong NUL": b'"\xc0\x80"', "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "beyond Unicode": b'"\xf4\x90\x80\x80"',
    "half a character": b'"\xe4\xbd"', "a continuation alone": b'"\x80"', "a BOM inside": b"\xef\xbb\xbf1",
    "a form feed": b"\x0c1", "a vertical tab": b"\x0b1", "a no-break space": b"\xc2\xa01",
    "a word joiner": b"\xe2\x81\xa01",
    "a BOM at the end": b"1\xef\xbb\xbf", "template": b"`a`", "a regular expression": b"/a/", "a date": b"2026-01-01",
    "a tuple": b"(1)", "ellipsis": b"[1,...]", "angle brackets": b"<null>", "an XML": b"<a/>", "star": b"[*]",
    "1,100 lists": b"[" * 1100 + b"]" * 1100, "1,100 objects": b'{"a":' * 1100 + b"1" + b"}" * 1100,
    "100,000 lists never closed": b"[" * 100_000, "50,000 objects never closed": b'[{"":' * 50_000,
}  # fmt: skip

# Values that a parser has to take; some of them only look odd.
VALID: dict[str, bytes] = {
    "null": b"null", "true": b"true", "false": b"false", "0": b"0", "-0": b"-0", "-0.0": b"-0.0", "1e5": b"1e5",
    "1E+5": b"1E+5", "1e-5": b"1e-5", "0e1": b"0e1", "1.5": b"1.5", "the largest": b"1.7976931348623157e308",
    "the smallest": b"5e-324", "an underflow": b"1e-999", "2^64": b"18446744073709551616", "25 digits": b"9" * 25,
    "a long fraction": b"0." + b"1" * 5000, "an empty string": b'""', "an escape": rb'"\u00e4\n\/\\\""',
    "an escaped NUL": rb'"\u0000"', "a pair": rb'"\ud834\udd1e"', "a pair written out": '"\U0001d11e"'.encode(),
    "DEL": b'"\x7f"', "C1": '"\x80\x9f"'.encode(), "line separators": '"\u2028\u2029"'.encode(),
    "noncharacters": '"\ufffe\uffff\U0010ffff"'.encode(), "right to left": '"\u202eabc"'.encode(),
    "an empty list": b"[]",
    "an empty object": b"{}", "an empty key": b'{"":0}', "a key with a NUL": rb'{"\u0000":0}',
    "blanks": b" \t\r\n1 \t\r\n",
    "blanks in a list": b"[ 1 , 2 ]", "mixed": b'[null,1,"a",{"b":[]}]', "200 lists": b"[" * 200 + b"]" * 200,
    "an escaped slash": rb'"<\/script>"', "quotes as text": rb'"\"\\"', "__proto__": b'{"__proto__":{"a":1}}',
}  # fmt: skip

TWICE: dict[str, bytes] = {
    "the same key": b'{"features":[1],"features":[2]}',
    "the same value": b'{"features":[1],"features":[1]}',
    "an escaped one": rb'{"features":[1],"\u0066eatures":[2]}',
    "deep": b'{"features":[1],"x":[{"a":{"b":1,"b":2}}]}',
    "in an instance": b'{"instances":[{"x":1,"x":2}]}',
    "an empty one": b'{"features":[1],"":1,"":2}',
    "among 10,000": b"{" + b",".join(b'"%d":1' % n for n in range(10_000)) + b',"77":1}',
}

ENCODED: dict[str, bytes] = {
    "a BOM": b'\xef\xbb\xbf{"features":[1]}',
    "UTF-16 LE": '{"features":[1]}'.encode("utf-16-le"),
    "UTF-16 BE with BOM": b"\xfe\xff" + '{"features":[1]}'.encode("utf-16-be"),
    "UTF-16": '{"features":[1]}'.encode("utf-16"),
    "UTF-32": '{"features":[1]}'.encode("utf-32"),
    "latin-1": '{"features":[1],"\u00e4":1}'.encode("latin-1"),
    "UTF-7": b"+AHsAIg-features+ACI:[1]+AH0-",
    "nothing": b"",
    "blanks": b" \r\n",
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\xff\xabVJKM,)-J-V\xb2\x8a6\x8c\xad\x05\0",
}

NAUGHTY = [
    "undefined", "null", "NULL", "(null)", "nil", "true", "hasOwnProperty", "\\", "\\\\", "0", "-1", "1/0", "1E02",
    "NaN",
    "Infinity", "0x0", "123456789012345678901234567890", "1,000", "\u00a0", "\ufeff", "\u200b\u200c\u200d",
    "\u202e\u202d",
    "\u0001\u0002\u001f", "\x7f\x80\x9f", "\u2028\u2029", "\t\v\f\r\n", "\u00e4\u00f6\u00fc\u00df",
    "\u7530\u4e2d\u3055\u3093",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "a\u0300\u0316\u0320\u0324" * 20,
    "\u0627\u0644\u0639",
    "\u1e9e\u0130\u0131", "\ufdfa", "''", '"', "' OR 1=1 --", "'; DROP TABLE inference_logs; --", "%", "_", "%s%n%x%d",
    "{0.__class__}", "{{7*7}}", "${7*7}", "#{7*7}", "<%= 7*7 %>", "<script>alert(1)</script>", "<!--#exec cmd=ls-->",
    "<!ENTITY x SYSTEM 'file:///etc/passwd'>", "javascript:alert(1)", "$(touch /tmp/x)", "`touch /tmp/x`", "; ls",
    "| ls",
    "& ping", "../../../../etc/passwd", "..\\..\\windows", "/dev/zero", "file:///etc/passwd", "C:con", "CON", "AUX.txt",
    "${jndi:ldap://127.0.0.1/a}", "() { :;}; echo", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\r\nSet-Cookie: a=b",
    "\nERROR forged line", "a" * 2000, "\U0010ffff", "\ufffe", "http://127.0.0.1:22/", "__import__('os')",
    "__class__", "Scunthorpe",
]  # fmt: skip
